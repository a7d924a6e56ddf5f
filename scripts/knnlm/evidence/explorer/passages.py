"""Which passages the neighbor explorer shows: chosen by rule, not by hand."""

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

RULES = {
    "largest_gain": "where the kNN-LM gains most over the LM",
    "largest_loss": "where the kNN-LM loses most against the LM, or gains least",
    "rare_words": "with the most tokens of words that train has at most ten times",
    "typical": "whose change is nearest to the mean over all scored tokens",
}
RARE = 10  # occurrences in train
SHORTEST = 0.5  # of the length of a passage; what is left of a document may be shorter


def cut_passages(positions: NDArray[np.int64], *, tokens: int) -> list[slice]:
    """Cut the queries into runs of neighboring tokens.

    A run lies in one document: the token that begins a document is no target of a query.

    Args:
        positions: (n,) of the queries in their split, ascending.
        tokens: of a passage, at most.

    Returns:
        Slices of the queries. Shorter ends of a run are left out, unless nothing else is there.
    """
    edges = [0, *(np.flatnonzero(np.diff(positions) != 1) + 1).tolist(), len(positions)]
    pieces = [
        slice(start, min(start + tokens, stop))
        for first, stop in itertools.pairwise(edges)
        for start in range(first, stop, tokens)
    ]
    long = [piece for piece in pieces if piece.stop - piece.start >= SHORTEST * tokens]
    return long or pieces


def choose(
    passages: list[slice], change: NDArray[np.float64], rare: NDArray[np.bool_]
) -> Mapping[str, slice]:
    """Return a passage for each of RULES, none twice; of equal ones the first in the text.

    Args:
        passages: from `cut_passages`.
        change: (n,), log p of the target by the kNN-LM minus by the LM, in nats.
        rare: (n,), whether the target belongs to a rare word.
    """
    means = np.array([change[piece].mean() for piece in passages])
    shares = np.array([rare[piece].mean() for piece in passages])
    wanted = {
        "largest_gain": means,
        "largest_loss": -means,
        "rare_words": shares,
        "typical": -np.abs(means - change.mean()),
    }
    chosen: dict[str, int] = {}
    for rule, scores in wanted.items():
        order = np.argsort(-scores, kind="stable")
        free = [int(place) for place in order if int(place) not in chosen.values()]
        if free:
            chosen[rule] = free[0]
    return {rule: passages[place] for rule, place in chosen.items()}
