"""What changes with the size of a datastore: its weight, and where it is as good as training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.intervals import NO_INTERVAL, Interval
from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.scored_split import KNN_LM, ScoredSplit
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.neighbors import Neighbors
from knnlm.retrieval.tuning import Point

Floats = NDArray[np.float64]
UNIT = "weight on kNN"


@dataclass(frozen=True)
class Size:
    """A kNN-LM with a datastore of one size.

    Attributes:
        share: of the whole datastore.
        n_entries: of this one.
        point: the settings that validation chose.
        nll: of test at the point, (n_tokens,) in nats.
        lmbdas: the grid of weights, (n_lmbdas,).
        by_weight: the nll of validation at every weight, k and temperature as chosen,
            (n_lmbdas, n_tokens) in nats.
    """

    share: float
    n_entries: int
    point: Point
    nll: Floats
    lmbdas: Floats
    by_weight: Floats

    @classmethod
    def of(cls, share: float, n_entries: int, point: Point, **scored: Any) -> "Size":
        """Score both splits.

        Args:
            share: see `Size`.
            n_entries: see `Size`.
            point: see `Size`.
            scored: `validation` and `test`, each the positions and their neighbors; and `lmbdas`.
        """
        (validation, tuned_on), (test, found) = scored["validation"], scored["test"]
        return cls(
            share=share,
            n_entries=n_entries,
            point=point,
            nll=test.knn_nll(found, point),
            lmbdas=scored["lmbdas"],
            by_weight=_by_weight(validation, tuned_on, point, scored["lmbdas"]),
        )


def _by_weight(scored: ScoredSplit, found: Neighbors, point: Point, lmbdas: Floats) -> Floats:
    nearest = slice(0, point.k)
    arrays = (found.distances[:, nearest], found.values[:, nearest], scored.targets)
    knn = knn_log_probs(*arrays, temperature=point.temperature)
    return np.stack([-mix_log_probs(-scored.nll, knn, lmbda) for lmbda in lmbdas])


def tuned_rows(validation: ScoredSplit, setting: str, size: Size, smallest: Size) -> list[Row]:
    """Return the settings that validation chose, and how the weight compares with the smallest's.

    The interval of a weight is that of the best one of resampled documents of validation, k and
    temperature as chosen; the difference of two takes the same documents for both.
    """
    names, n = validation.row_names(KNN_LM, setting), len(validation.targets)
    bootstrap, lmbdas = validation.text.bootstrap, size.lmbdas

    def best(*means: Floats) -> Floats:
        return lmbdas[np.argmin(np.stack(means), axis=0)]

    def larger(*means: Floats) -> Floats:
        return best(*means[: len(lmbdas)]) - best(*means[len(lmbdas) :])

    weight = bootstrap.of_means(best, *size.by_weight)
    difference = bootstrap.of_means(larger, *size.by_weight, *smallest.by_weight)
    chosen = {
        ("k", "neighbors"): (size.point.k, NO_INTERVAL),
        ("temperature", "squared distance"): (size.point.temperature, NO_INTERVAL),
        ("datastore_entries", "count"): (size.n_entries, NO_INTERVAL),
        ("lmbda", UNIT): (size.point.lmbda, weight),
        ("lmbda_vs_smallest", UNIT): (size.point.lmbda - smallest.point.lmbda, difference),
    }
    return [
        _row(names, metric, value, interval, n=n, unit=unit)
        for (metric, unit), (value, interval) in chosen.items()
        if size is not smallest or metric != "lmbda_vs_smallest"
    ]


def crossing_rows(
    test: ScoredSplit, setting: str, sizes: Sequence[Size], whole: Floats
) -> list[Row]:
    """Return the share of the datastore with which the kNN-LM is as good as another LM.

    Between two sizes the nll is taken as linear in the share; the share 0 is the LM alone.

    Args:
        test: the positions.
        setting: of the row.
        sizes: by share, ascending.
        whole: nll of the other LM, (n_tokens,) in nats.

    Returns:
        A row, without an interval where some resamples never get there; none if test does not.
    """
    shares = np.array([0.0, *(size.share for size in sizes)])
    per_token = [nll - whole for nll in (test.nll, *(size.nll for size in sizes))]
    value = crossing(shares, np.array([[nll.mean()] for nll in per_token])).item()
    if not np.isfinite(value):
        return []
    interval = test.text.bootstrap.of_means(
        lambda *means: crossing(shares, np.stack(means)), *per_token
    )
    if not np.isfinite(interval).all():
        interval = NO_INTERVAL
    names = test.row_names(KNN_LM, setting)
    row = _row(names, "crossing_share", value, interval, n=len(whole), unit="share")
    return [row]


def crossing(shares: Floats, differences: Floats) -> Floats:
    """Return the share at which a difference first falls to 0, linear between two; inf if never.

    Args:
        shares: (n,), ascending.
        differences: (n, n_samples).
    """
    below = differences <= 0
    first = np.argmax(below, axis=0)
    columns = np.arange(differences.shape[1])
    before = np.maximum(first - 1, 0)
    high, low = differences[before, columns], differences[first, columns]
    fall = np.where(first > 0, high - low, 1.0)
    part = np.where(first > 0, np.divide(high, fall, where=fall > 0, out=np.zeros_like(fall)), 1.0)
    at = shares[before] + part * (shares[first] - shares[before])
    return np.where(below.any(axis=0), at, np.inf)


def _row(
    names: Mapping[str, Any], metric: str, value: float, interval: Interval, *, n: int, unit: str
) -> Row:
    ends = {"ci_low": interval.low, "ci_high": interval.high}
    return {**names, "metric": metric, "value": value, **ends, "n": n, "unit": unit}
