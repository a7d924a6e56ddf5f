"""What LM and kNN say of each token of a few passages, and from which neighbors: for a reader.

Nothing is searched here: distributions come from stored hidden states and stored neighbors, at
the k, temperature and lmbda that were tuned on validation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from knnlm.evidence.explorer.passages import RARE, choose, cut_passages
from knnlm.evidence.token_classes import core, count_words, read_text, words_of_tokens
from knnlm.lm.anatomy import head_weight
from knnlm.lm.architecture import OUTPUT_AFTER
from knnlm.lm.model import load_model
from knnlm.lm.scoring import Queries, load_queries
from knnlm.retrieval.distribution import knn_distribution, knn_weights
from knnlm.retrieval.neighbors import Neighbors, load_neighbors
from knnlm.retrieval.tuning import Point, Tuned, nll_at
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.text.tokenizer import read_tokenizer
from knnlm.text.tokens import TokenStream, load_tokens

DIGITS = 4  # of probabilities, distances and weights
BYTE = "\ufffd"  # stands for bytes that are no whole character


class ExplorerInputs(NamedTuple):
    """The folders that a page is made from: text, its tokens and tokenizer, LM, what it scored.

    `queries` are of test, and `neighbors` are theirs; `datastore_tokens` are those that the
    datastore was made from.
    """

    text: Path
    tokens: Path
    datastore_tokens: Path
    tokenizer: Path
    model: Path
    queries: Path
    neighbors: Path


@dataclass(frozen=True)
class Read:
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

    @classmethod
    def of(cls, inputs: ExplorerInputs, point: Point) -> "Read":
        """Open the folders, which must belong together."""
        origin = identity(inputs.model, kind="model")
        require_origin(inputs.queries, kind="queries", role="model", expected=origin)
        origin = identity(inputs.queries, kind="queries")
        require_origin(inputs.neighbors, kind="neighbors", role="queries", expected=origin)
        return cls(
            tokenizer=read_tokenizer(inputs.tokenizer),
            train=load_tokens(inputs.datastore_tokens, "train"),
            test=load_tokens(inputs.tokens, "test"),
            text=read_text(inputs.text / "test.txt"),
            queries=load_queries(inputs.queries),
            found=load_neighbors(inputs.neighbors),
            point=point,
            head=head_weight(load_model(inputs.model)).detach(),
        )

    def written(self, position: int) -> str:
        """Return the characters of the test text that a token covers; BYTE for a part of one."""
        edges = [*self.test.starts[position : position + 2].tolist(), len(self.text)]
        return self.text[edges[0] : edges[1]] or BYTE

    def decoded(self, ids: NDArray[Any]) -> str:
        """Return tokens as text."""
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def explore(inputs: ExplorerInputs, tuned: Tuned, *, settings: Mapping[str, int]) -> dict[str, Any]:
    """Return the passages with, for each token, three distributions and the nearest neighbors.

    Args:
        inputs: the folders.
        tuned: k, temperature and lmbda.
        settings: the block `explorer` of the config: `passage_tokens`, and how many `top`
            tokens, `neighbors` and `context_tokens` are shown.

    Raises:
        ArtifactError: if the folders do not belong together.
    """
    read = Read.of(inputs, tuned.point)
    change = _change(read)
    rare = _rare(read, count_words(inputs.text / "train.txt"))
    scored = read.queries
    pieces = cut_passages(scored.positions, tokens=settings["passage_tokens"])
    return {
        "seed": int(tuned.names["seed"]),
        "index": tuned.names["index"],
        **read.point._asdict(),
        "entries": len(read.found.entries),
        "queries": scored.n_queries,
        "mean_change": _short(change.mean()),
        "passages": [
            _passage(read, rows, settings) | {"rule": rule, "change": _short(change[rows].mean())}
            for rule, rows in choose(pieces, change, rare).items()
        ],
    }


def _change(read: Read) -> NDArray[np.float64]:
    """Return log p(target) by the kNN-LM minus by the LM, in nats."""
    scored, found = read.queries, read.found
    nll = nll_at(read.point, found.distances, found.values, scored.targets, scored.lm_log_probs)
    return -nll - scored.lm_log_probs


def _rare(read: Read, counts: Mapping[str, int]) -> NDArray[np.bool_]:
    """Return which targets belong to a word that train has at most RARE times."""
    edges = np.append(read.test.starts, len(read.text))
    targets = np.asarray(read.queries.positions) + 1
    words = words_of_tokens(read.text, edges[targets], edges[targets + 1]).words
    return np.array([bool(word) and counts[core(word)] <= RARE for word in words])


def distributions(read: Read, rows: slice) -> dict[str, Tensor]:
    """Return p of LM, kNN and their mixture over all tokens, each (rows, n_tokens) float64."""
    states = torch.from_numpy(np.array(read.queries.hidden(OUTPUT_AFTER)[rows]))
    lm = (states @ read.head.T).double().softmax(dim=1)
    k, temperature, lmbda = read.point
    values, probabilities = knn_distribution(
        torch.from_numpy(read.found.distances[rows, :k]),
        torch.from_numpy(read.found.values[rows, :k]),
        temperature=temperature,
    )
    knn = torch.zeros_like(lm).scatter_add_(1, values, probabilities)
    return {"lm": lm, "knn": knn, "mixture": (1 - lmbda) * lm + lmbda * knn}


def _passage(read: Read, rows: slice, settings: Mapping[str, int]) -> dict[str, Any]:
    first = int(read.queries.positions[rows.start]) + 1  # the first target
    document = int(read.queries.documents[rows.start])
    opening = max(first - settings["passage_tokens"] // 2, int(read.test.documents[document]))
    starts = read.test.starts
    predicted = distributions(read, rows)
    return {
        "document": document,
        "before": read.text[starts[opening] : starts[first]],
        "tokens": [
            _token(read, query, {name: p[row] for name, p in predicted.items()}, settings)
            for row, query in enumerate(range(rows.start, rows.stop))
        ],
    }


def _token(
    read: Read, query: int, predicted: Mapping[str, Tensor], settings: Mapping[str, int]
) -> dict[str, Any]:
    target = int(read.queries.targets[query])
    return {
        "text": read.written(int(read.queries.positions[query]) + 1),
        "target": {name: _short(p[target].item()) for name, p in predicted.items()},
        "top": {name: _top(read, p, target, settings["top"]) for name, p in predicted.items()},
        "neighbors": nearest_entries(read, query, target, settings),
    }


def _top(read: Read, p: Tensor, target: int, n: int) -> list[dict[str, Any]]:
    """Return the likeliest tokens; of equal ones the smaller id first, none of probability 0."""
    order = np.lexsort((np.arange(len(p)), -p.numpy()))[:n]
    return [
        {
            "token": read.decoded(order[[place]]),
            "p": _short(p[chosen].item()),
            "hit": int(chosen) == target,
        }
        for place, chosen in enumerate(order.tolist())
        if p[chosen] > 0
    ]


def nearest_entries(
    read: Read, query: int, target: int, settings: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the nearest entries: how far, how heavy, after what they stand, and what came next."""
    k, temperature, _ = read.point
    distances, values = (
        torch.from_numpy(array[[query], :k]) for array in (read.found.distances, read.found.values)
    )
    weights = knn_weights(distances, values, temperature=temperature)[0]
    positions = read.found.entries.positions(read.found.ids[query])
    entries = []
    for place in range(min(settings["neighbors"], k)):
        entry = int(positions[place])
        if entry < 0:
            break
        documents = read.train.documents
        opening = int(documents[np.searchsorted(documents, entry, side="right") - 1])
        begin = max(opening, entry + 1 - settings["context_tokens"])
        value = read.found.values[query, place]
        entries.append(
            {
                "distance": _short(distances[0, place]),
                "weight": _short(weights[place]),
                "before": read.decoded(read.train.tokens[begin : entry + 1]),
                "next": read.decoded(np.array([value])),
                "hit": int(value) == target,
            }
        )
    return entries


def _short(value: float) -> float:
    """Return a number with a few significant digits: enough to read, few bytes."""
    return float(f"{value:.{DIGITS}g}")
