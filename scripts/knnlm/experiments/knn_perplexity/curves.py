"""The curves of knn_perplexity: perplexity on validation along k, temperature and lmbda.

Along each curve one setting varies and the two others stay at their tuned values; along one more,
temperature and lmbda are tuned anew for each k, as whoever had only k neighbors would. Intervals
come from resampled documents of validation; the tuned point is the least of the same tokens, so
they say how a level moves with the documents, not what tuning on them costs.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.tuning import Tuned

COORDINATES = ("k", "temperature", "lmbda")
RETUNED = "over k, retuned"
AXES = ("k", "temperatures", "lmbdas")  # of the grid, by coordinate

Place = tuple[int, ...]  # in the grid, of k, temperature and lmbda


def level(scored: ScoredSplit, method: str, setting: str, nll: NDArray[np.float64]) -> Row:
    """Return the perplexity per token of a method on validation, from the nll of each token."""
    return scored.text.perplexities(scored.row_names(method, setting), nll)[0]


def curves(retrieved: Retrieved, index: str) -> list[Row]:
    """Return the points of the curves through the tuned point, and that point.

    Along `RETUNED` each point has its change against the first, of the smallest k, as well; the
    documents are resampled for both together.

    Args:
        retrieved: neighbors of validation.
        index: by which they were found, the first part of `setting`.
    """
    scored, found, tuned = retrieved.scored, retrieved.found, retrieved.tuned
    axes = [tuned.grid[name] for name in AXES]

    @functools.cache  # along lmbda all points mix the same probabilities
    def knn(k: int, temperature: int) -> NDArray[np.float64]:
        nearest = slice(0, axes[0][k])
        return knn_log_probs(
            found.distances[:, nearest],
            found.values[:, nearest],
            scored.targets,
            temperature=axes[1][temperature] * tuned.mean_squared_distance,
        )

    def nll_at(place: Place) -> NDArray[np.float64]:
        return -mix_log_probs(-scored.nll, knn(*place[:2]), axes[2][place[2]])

    rows, smallest_k = [], nll_at(tuned.places[0])
    for setting, place in _places(tuned, [len(axis) for axis in axes]):
        nll, names = nll_at(place), scored.row_names(KNN_LM, f"{index}/{setting}")
        at = {name: axes[i][place[i]] for i, name in enumerate(COORDINATES)}
        rows.append(level(scored, KNN_LM, names["setting"], nll) | at)
        if setting == RETUNED:
            changes = scored.text.differences(names, nll, smallest_k, against="smallest_k")
            rows += [change | at for change in changes]
    return rows


def _places(tuned: Tuned, counts: Sequence[int]) -> Iterator[tuple[str, Place]]:
    """Yield the tuned place in the grid, all that differ from it in one coordinate, and RETUNED."""
    yield "tuned", tuned.place
    for axis, varied in enumerate(COORDINATES):
        for i in range(counts[axis]):
            yield f"over {varied}", (*tuned.place[:axis], i, *tuned.place[axis + 1 :])
    for place in tuned.places:
        yield RETUNED, place
