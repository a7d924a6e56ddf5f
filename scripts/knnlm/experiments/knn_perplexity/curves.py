"""The curves of knn_perplexity: perplexity on validation along k, temperature and lmbda.

Along each curve one setting varies and the two others stay at their tuned values. Intervals come
from resampled documents of validation; the tuned point is the least of the same tokens, so they
say how a level moves with the documents, not what tuning on them costs.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs

COORDINATES = ("k", "temperature", "lmbda")
AXES = ("k", "temperatures", "lmbdas")  # of the grid, by coordinate


def level(scored: ScoredSplit, method: str, setting: str, nll: NDArray[np.float64]) -> Row:
    """Return the perplexity per token of a method on validation, from the nll of each token."""
    return scored.text.perplexities(scored.row_names(method, setting), nll)[0]


def curves(retrieved: Retrieved, index: str) -> list[Row]:
    """Return the points of the curves through the tuned point, and that point.

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

    rows = []
    for setting, place in _places(tuned.place, [len(axis) for axis in axes]):
        nll = -mix_log_probs(-scored.nll, knn(*place[:2]), axes[2][place[2]])
        row = level(scored, KNN_LM, f"{index}/{setting}", nll)
        rows.append(row | {name: axes[i][place[i]] for i, name in enumerate(COORDINATES)})
    return rows


def _places(tuned: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tuned place in the grid, and all that differ from it in one coordinate."""
    yield "tuned", tuple(tuned)
    for axis, varied in enumerate(COORDINATES):
        for i in range(counts[axis]):
            yield f"over {varied}", (*tuned[:axis], i, *tuned[axis + 1 :])
