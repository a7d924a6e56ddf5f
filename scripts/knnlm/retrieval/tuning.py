"""Tuning on validation: a grid of k, temperature and lmbda over stored neighbors, and its best."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.interpolation import knn_log_probs, mean_distance, mix_log_probs, sweep


class Point(NamedTuple):
    """The three settings of a kNN-LM; temperature in units of squared distance."""

    k: int
    temperature: float
    lmbda: float


@dataclass(frozen=True)
class Tuning:
    """The mean nll of every point of a grid, on validation.

    Attributes:
        ks: (n_k,) numbers of neighbors.
        temperatures: (n_temperatures,), relative to `distance`.
        lmbdas: (n_lmbdas,) weights on kNN.
        distance: the mean squared distance of the found neighbors, see `mean_distance`.
        nll: (n_k, n_temperatures, n_lmbdas), nats a token.
    """

    ks: NDArray[np.int64]
    temperatures: NDArray[np.float64]
    lmbdas: NDArray[np.float64]
    distance: float
    nll: NDArray[np.float64]

    @property
    def best(self) -> tuple[int, int, int]:
        """The place of the least nll in the grid; of equal ones, the first."""
        k, temperature, lmbda = np.unravel_index(np.argmin(self.nll), self.nll.shape)
        return int(k), int(temperature), int(lmbda)

    @property
    def point(self) -> Point:
        """The settings of the least nll."""
        k, temperature, lmbda = self.best
        return Point(
            k=int(self.ks[k]),
            temperature=float(self.temperatures[temperature] * self.distance),
            lmbda=float(self.lmbdas[lmbda]),
        )


def tune(
    distances: NDArray[np.float32],
    values: NDArray[np.int32],
    targets: NDArray[np.int32],
    lm_log_probs: NDArray[np.float64],
    *,
    grid: Mapping[str, Any],
) -> Tuning:
    """Score the validation split at every point of a grid.

    Args:
        distances: (n_queries, k_max), squared L2, ascending; +inf where a neighbor is missing.
        values: (n_queries, k_max), -1 where a neighbor is missing.
        targets: (n_queries,).
        lm_log_probs: (n_queries,), natural logarithms.
        grid: `k`, a list; `temperatures`, `low`, `high` and `count` of a geometric series
            relative to the mean distance; `lmbdas`, the same of an arithmetic one.

    Raises:
        ValueError: if the grid needs more neighbors than were stored, or see `sweep`.
    """
    distance = mean_distance(distances)
    temperatures = np.geomspace(*_low_high_count(grid["temperatures"]))
    lmbdas = np.linspace(*_low_high_count(grid["lmbdas"]))
    nll = sweep(
        distances,
        values,
        targets,
        lm_log_probs,
        ks=grid["k"],
        temperatures=temperatures * distance,
        lmbdas=lmbdas,
    )
    return Tuning(np.asarray(grid["k"], np.int64), temperatures, lmbdas, distance, nll)


def nll_at(
    point: Point,
    distances: NDArray[np.float32],
    values: NDArray[np.int32],
    targets: NDArray[np.int32],
    lm_log_probs: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the nll of each target under the kNN-LM with the given settings, in nats.

    Args:
        point: the settings.
        distances: (n_queries, k_max), squared L2, ascending; the first `point.k` are used.
        values: (n_queries, k_max).
        targets: (n_queries,).
        lm_log_probs: (n_queries,), natural logarithms.

    Raises:
        ValueError: if fewer than `point.k` neighbors were stored.
    """
    if point.k > distances.shape[1]:
        raise ValueError(
            f"expected at least k = {point.k} stored neighbors, got {distances.shape[1]}; raise "
            "search.k and search again"
        )
    nearest = slice(0, point.k)
    knn = knn_log_probs(
        distances[:, nearest], values[:, nearest], targets, temperature=point.temperature
    )
    return -mix_log_probs(lm_log_probs, knn, point.lmbda)


def _low_high_count(series: Mapping[str, Any]) -> tuple[float, float, int]:
    return series["low"], series["high"], series["count"]
