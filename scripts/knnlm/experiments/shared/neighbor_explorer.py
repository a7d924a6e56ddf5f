"""What LM and kNN say of each token of a few passages, and from which neighbors: for a reader.

Nothing is searched here: distributions come from stored hidden states and stored neighbors, at
the k, temperature and lmbda that knn_perplexity tuned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from knnlm.evidence.explorer.passages import RARE, choose, cut_passages
from knnlm.evidence.token_classes import core, count_words, read_text, words_of_tokens
from knnlm.experiments.shared.tuned_point import tuned_point
from knnlm.experiments.softmax_bottleneck.projection import merge_neighbors
from knnlm.lm.anatomy import OUTPUT_AFTER, head_weight
from knnlm.lm.model import load_model
from knnlm.lm.scoring import Queries, load_queries
from knnlm.retrieval.neighbors import Neighbors, load_neighbors
from knnlm.retrieval.tuning import Point, nll_at
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.text.tokenizer import read_tokenizer
from knnlm.text.tokens import TokenStream, load_tokens

DIGITS = 4  # of probabilities, distances and weights
BYTE = "\ufffd"  # stands for bytes that are no whole character


@dataclass(frozen=True)
class Sources:
    """What the passages are read from.

    Attributes:
        tokenizer: of the streams.
        train: the stream whose entries are the neighbors.
        test: the stream of the queries.
        text: the text of test.
        queries: the scored positions of test.
        found: their neighbors.
        point: k, temperature and lmbda.
        head: (n_tokens, dim), the output matrix of the LM.
    """

    tokenizer: Tokenizer
    train: TokenStream
    test: TokenStream
    text: str
    queries: Queries
    found: Neighbors
    point: Point
    head: Tensor

    def written(self, position: int) -> str:
        """Return the characters of the test text that a token covers; BYTE for a part of one."""
        edges = [*self.test.starts[position : position + 2].tolist(), len(self.text)]
        return self.text[edges[0] : edges[1]] or BYTE

    def decoded(self, ids: NDArray[Any]) -> str:
        """Return tokens as text."""
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def explore(
    *,
    settings: Mapping[str, int],
    table: pd.DataFrame,
    index: str,
    seed: int,
    text: Path,
    tokens: Path,
    tokenizer: Path,
    model: Path,
    queries: Path,
    neighbors: Path,
) -> dict[str, Any]:
    """Return the passages with, for each token, three distributions and the nearest neighbors.

    Args:
        settings: the block `explorer` of the config: `passage_tokens`, and how many `top`
            tokens, `neighbors` and `context_tokens` are shown.
        table: of knn_perplexity, for the tuned point.
        index: whose neighbors they are.
        seed: of the LM.
        text: the text artifact.
        tokens: the tokens artifact.
        tokenizer: the tokenizer artifact.
        model: the LM.
        queries: of test, scored by the LM.
        neighbors: of these queries.

    Raises:
        ArtifactError: if the folders do not belong together.
    """
    origin = identity(model, kind="model")
    require_origin(queries, kind="queries", role="model", expected=origin)
    origin = identity(queries, kind="queries")
    require_origin(neighbors, kind="neighbors", role="queries", expected=origin)
    sources = Sources(
        tokenizer=read_tokenizer(tokenizer),
        train=load_tokens(tokens, "train"),
        test=load_tokens(tokens, "test"),
        text=read_text(text / "test.txt"),
        queries=load_queries(queries),
        found=load_neighbors(neighbors),
        point=tuned_point(table, index=index, seed=seed),
        head=head_weight(load_model(model)).detach(),
    )
    change = _change(sources)
    rare = _rare(sources, count_words(text / "train.txt"))
    scored = sources.queries
    pieces = cut_passages(scored.positions, scored.documents, tokens=settings["passage_tokens"])
    return {
        "seed": seed,
        "index": index,
        **sources.point._asdict(),
        "entries": sources.train.n_tokens - 1,
        "queries": scored.n_queries,
        "mean_change": _short(change.mean()),
        "passages": [
            _passage(sources, rows, settings)
            | {"rule": rule, "change": _short(change[rows].mean())}
            for rule, rows in choose(pieces, change, rare).items()
        ],
    }


def _change(sources: Sources) -> NDArray[np.float64]:
    """Return log p(target) by the kNN-LM minus by the LM, in nats."""
    scored, found = sources.queries, sources.found
    nll = nll_at(sources.point, found.distances, found.values, scored.targets, scored.lm_log_probs)
    return -nll - scored.lm_log_probs


def _rare(sources: Sources, counts: Mapping[str, int]) -> NDArray[np.bool_]:
    """Return which targets belong to a word that train has at most RARE times."""
    edges = np.append(sources.test.starts, len(sources.text))
    targets = np.asarray(sources.queries.positions) + 1
    words = words_of_tokens(sources.text, edges[targets], edges[targets + 1]).words
    return np.array([bool(word) and counts[core(word)] <= RARE for word in words])


def distributions(sources: Sources, rows: slice) -> dict[str, Tensor]:
    """Return p of LM, kNN and their mixture over all tokens, each (rows, n_tokens) float64."""
    states = torch.from_numpy(np.array(sources.queries.hidden(OUTPUT_AFTER)[rows]))
    lm = (states @ sources.head.T).double().softmax(dim=1)
    k, temperature, lmbda = sources.point
    values, probabilities = merge_neighbors(
        torch.from_numpy(sources.found.distances[rows, :k]),
        torch.from_numpy(sources.found.values[rows, :k]),
        temperature=temperature,
    )
    knn = torch.zeros_like(lm).scatter_add_(1, values, probabilities)
    return {"lm": lm, "knn": knn, "mixture": (1 - lmbda) * lm + lmbda * knn}


def _passage(sources: Sources, rows: slice, settings: Mapping[str, int]) -> dict[str, Any]:
    first = int(sources.queries.positions[rows.start]) + 1  # the first target
    document = int(sources.queries.documents[rows.start])
    opening = max(first - settings["passage_tokens"] // 2, int(sources.test.documents[document]))
    starts = sources.test.starts
    predicted = distributions(sources, rows)
    return {
        "document": document,
        "before": sources.text[starts[opening] : starts[first]],
        "tokens": [
            _token(sources, query, {name: p[row] for name, p in predicted.items()}, settings)
            for row, query in enumerate(range(rows.start, rows.stop))
        ],
    }


def _token(
    sources: Sources, query: int, predicted: Mapping[str, Tensor], settings: Mapping[str, int]
) -> dict[str, Any]:
    target = int(sources.queries.targets[query])
    return {
        "text": sources.written(int(sources.queries.positions[query]) + 1),
        "target": {name: _short(p[target].item()) for name, p in predicted.items()},
        "top": {name: _top(sources, p, target, settings["top"]) for name, p in predicted.items()},
        "neighbors": _nearest(sources, query, target, settings),
    }


def _top(sources: Sources, p: Tensor, target: int, n: int) -> list[dict[str, Any]]:
    """Return the likeliest tokens; of equal ones the smaller id first, none of probability 0."""
    order = np.lexsort((np.arange(len(p)), -p.numpy()))[:n]
    return [
        {
            "token": sources.decoded(order[[place]]),
            "p": _short(p[chosen].item()),
            "hit": int(chosen) == target,
        }
        for place, chosen in enumerate(order.tolist())
        if p[chosen] > 0
    ]


def _nearest(
    sources: Sources, query: int, target: int, settings: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the nearest entries: how far, how heavy, after what they stand, and what came next."""
    k, temperature, _ = sources.point
    distances = sources.found.distances[query, :k].astype(np.float64)
    weights = np.exp((distances[0] - distances) / temperature)  # the first is found and nearest
    weights /= weights.sum()
    entries = []
    for place in range(min(settings["neighbors"], k)):
        entry = int(sources.found.ids[query, place])
        if entry < 0:
            break
        documents = sources.train.documents
        opening = int(documents[np.searchsorted(documents, entry, side="right") - 1])
        begin = max(opening, entry + 1 - settings["context_tokens"])
        value = sources.found.values[query, place]
        entries.append(
            {
                "distance": _short(distances[place]),
                "weight": _short(weights[place]),
                "before": sources.decoded(sources.train.tokens[begin : entry + 1]),
                "next": sources.decoded(np.array([value])),
                "hit": int(value) == target,
            }
        )
    return entries


def _short(value: float) -> float:
    """Return a number with a few significant digits: enough to read, few bytes."""
    return float(f"{value:.{DIGITS}g}")
