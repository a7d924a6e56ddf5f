"""The examples of which p_kNN exceeds p_LM most, with their neighbors, chosen by rule."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tokenizers import Tokenizer

from knnlm.experiments.shared.scored_split import Retrieved
from knnlm.text.tokens import TokenStream


@dataclass(frozen=True)
class Examples:
    """What examples are written from, and how many.

    Attributes:
        tokenizer: of the streams.
        train: the stream whose entries are the neighbors.
        test: the stream of the targets.
        suffixes: (n,), the longest common suffix of each context with one of train.
        count: examples, one of a document at most.
        context_tokens: tokens before a target that are shown.
        neighbors: of each example.
    """

    tokenizer: Tokenizer
    train: TokenStream
    test: TokenStream
    suffixes: NDArray[np.int64]
    count: int
    context_tokens: int
    neighbors: int

    def before(self, stream: TokenStream, last: int) -> str:
        """Return the text up to a token of a stream, no further back than its document."""
        opening = np.searchsorted(stream.documents, last, side="right") - 1
        # after the end-of-document token, which stands for no text
        first = max(int(stream.documents[opening]) + 1, last + 1 - self.context_tokens)
        return self.decoded(stream.tokens[first : last + 1])

    def decoded(self, ids: NDArray[Any]) -> str:
        """Return tokens as text."""
        return self.tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


def chosen(gains: NDArray[np.float64], documents: NDArray[np.int32], count: int) -> list[int]:
    """Return the places of the largest gains, one of a document; of equal ones the first."""
    order = np.argsort(-gains, kind="stable")
    _, first = np.unique(documents[order], return_index=True)  # the first of each document
    return order[np.sort(first)][:count].tolist()


def examples_of(
    shown: Examples, retrieved: Retrieved, knn_probs: NDArray[np.float64]
) -> pd.DataFrame:
    """Return the examples, a row for each neighbor.

    Args:
        shown: what they are written from.
        retrieved: neighbors of the scored positions.
        knn_probs: (n,), p_kNN of each target.

    Returns:
        Columns example, document, context, target, p_lm, p_knn, common_suffix, neighbor (1 is
        the nearest), squared_distance, its context, and the token that followed it.
    """
    scored, found = retrieved.scored, retrieved.found
    lm_probs = np.exp(-scored.nll)
    documents = scored.queries.documents[scored.places]
    rows = []
    for number, place in enumerate(chosen(knn_probs - lm_probs, documents, shown.count), start=1):
        query = scored.places[place]
        described = {
            "example": number,
            "document": int(documents[place]),
            "context": shown.before(shown.test, int(scored.queries.positions[query])),
            "target": shown.decoded(scored.targets[[place]]),
            "p_lm": f"{lm_probs[place]:.4f}",
            "p_knn": f"{knn_probs[place]:.4f}",
            "common_suffix": int(shown.suffixes[query]),
        }
        entries = found.entries.positions(found.ids[place, : shown.neighbors])
        for rank, entry in enumerate(entries.tolist(), start=1):
            if entry >= 0:  # a missing neighbor has no place
                rows.append(
                    described
                    | {
                        "neighbor": rank,
                        "squared_distance": f"{found.distances[place, rank - 1]:.3f}",
                        "neighbor_context": shown.before(shown.train, entry),
                        "neighbor_next": shown.decoded(found.values[place, [rank - 1]]),
                    }
                )
    return pd.DataFrame(rows)
