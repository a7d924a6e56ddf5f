"""From stored neighbors to probabilities: the kNN distribution, its mixture with the LM, sweeps.

Neighbors are found once; every k, temperature and lmbda is scored from their squared distances
and values. All sums are taken in float64, over distances shifted by the smallest one, so that
nothing overflows and the nearest neighbor never underflows.

A missing neighbor has distance +inf and weighs nothing. A query with no neighbor at all has no
p_kNN: its log-probability is NaN, and the mixture falls back to the LM alone (lmbda = 0).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROWS_AT_A_TIME = 256  # 256 queries x 1,024 neighbors x 8 bytes = 2 MiB: stays in the cache
SMALLEST_PRODUCT = 1e-280  # above the smallest normal float64, 2e-308


def mean_distance(distances: NDArray[np.float32]) -> float:
    """Return the unit of relative temperatures: the mean squared distance of found neighbors.

    It is the mean over queries of the mean over the found neighbors of a query. Temperatures
    depend on width and key site by factors of 30; relative to this mean they do not. Take it
    from the validation split and use the same number on the test split. Of inner products it is
    the mean spread, the largest of a query less their mean, since `Neighbors` has how far each
    lies below the largest.

    Args:
        distances: (n_queries, k), of `Neighbors`; +inf where a neighbor is missing.

    Raises:
        ValueError: if no query has a neighbor.
    """
    found = np.isfinite(distances)
    counts = found.sum(axis=1)
    if not counts.any():
        raise ValueError(
            "expected at least one query with a neighbor, got none; raise n_probes of the index"
        )
    sums = np.sum(distances, axis=1, dtype=np.float64, where=found)
    return float(np.mean(sums[counts > 0] / counts[counts > 0]))


def knn_log_probs(
    distances: NDArray[np.float32],
    values: NDArray[np.int32],
    targets: NDArray[np.int32],
    *,
    temperature: float,
) -> NDArray[np.float64]:
    """Return log p_kNN of each target, in nats.

    A softmax over the negative squared distances of the k neighbors, summed over those that
    share the target's value: Khandelwal et al. (2020), Eq. 2, with the temperature of Xu et al.
    (2023). A target that no neighbor has gets log 0 = -inf; the code released with the first
    paper puts -10000 there.

    Args:
        distances: (n_queries, k), squared L2; +inf where a neighbor is missing.
        values: (n_queries, k), the token that followed each neighbor; -1 where it is missing.
        targets: (n_queries,), the token that did follow.
        temperature: above 0; 1 is the softmax of the first paper.

    Returns:
        (n_queries,), each at most 0; NaN for a query with no neighbor at all.

    Raises:
        ValueError: if the temperature, a shape or a distance is not as above.
    """
    _check_neighbors(distances, values, targets)
    _check_temperatures([temperature])
    result = np.empty(len(targets))
    for rows in _row_blocks(len(targets)):
        scaled = distances[rows].astype(np.float64) / temperature
        hits = np.where(values[rows] == targets[rows, None], scaled, np.inf)
        result[rows] = _log_sum_exp(hits) - _log_sum_exp(scaled, empty=np.nan)
    return np.minimum(result, 0.0)  # rounding may put it 1e-16 above


def mix_log_probs(
    lm_log_probs: NDArray[np.float64], knn_log_probs: NDArray[np.float64], lmbda: ArrayLike
) -> NDArray[np.float64]:
    """Return log((1 - lmbda) p_LM + lmbda p_kNN), in nats: Khandelwal et al. (2020), Eq. 3.

    lmbda is the weight on kNN. Where it is 0, and where p_kNN does not exist (NaN: the query
    has no neighbor), the result is the LM's log-probability bit for bit.

    Args:
        lm_log_probs: (n_queries,), natural logarithms.
        knn_log_probs: (n_queries,), from `knn_log_probs`.
        lmbda: a number in [0, 1), or one for each query.

    Raises:
        ValueError: if lmbda is not in [0, 1).
    """
    weights = _check_lmbdas(lmbda)
    lm_log_probs = np.asarray(lm_log_probs, dtype=np.float64)
    lm_alone = np.isnan(knn_log_probs)
    knn_log_probs = np.where(lm_alone, -np.inf, knn_log_probs)
    with np.errstate(divide="ignore"):
        knn_part = np.log(weights) + knn_log_probs
    mixed = np.logaddexp(np.log1p(-weights) + lm_log_probs, knn_part)
    return np.where(lm_alone, lm_log_probs, mixed)


def sweep(
    distances: NDArray[np.float32],
    values: NDArray[np.int32],
    targets: NDArray[np.int32],
    lm_log_probs: NDArray[np.float64],
    *,
    ks: Sequence[int],
    temperatures: Sequence[float],
    lmbdas: Sequence[float],
) -> NDArray[np.float64]:
    """Return the mean negative log-likelihood of the mixture for each k, temperature and lmbda.

    The same as `mix_log_probs` of `knn_log_probs` of the first k neighbors, averaged over
    queries, except that a p_kNN below 1e-308 counts as 0.

    Args:
        distances: (n_queries, k_max), squared L2, ascending; +inf where a neighbor is missing.
        values: (n_queries, k_max), -1 where a neighbor is missing.
        targets: (n_queries,).
        lm_log_probs: (n_queries,), natural logarithms, finite.
        ks: numbers of neighbors, each from 1 to k_max.
        temperatures: each above 0, in units of squared distance.
        lmbdas: weights on kNN, each in [0, 1).

    Returns:
        (n_k, n_temperatures, n_lmbdas), in nats a token.

    Raises:
        ValueError: if a setting, a shape, a distance or a log-probability is not as above.
    """
    _check_neighbors(distances, values, targets)
    _check_temperatures(temperatures)
    weights = _check_lmbdas(lmbdas)
    if len(lm_log_probs) != len(targets) or not np.isfinite(lm_log_probs).all():
        raise ValueError(
            f"expected {len(targets):,} finite lm_log_probs, got {len(lm_log_probs):,} of which "
            f"{np.isfinite(lm_log_probs).sum():,} are finite"
        )
    if not all(1 <= k <= distances.shape[1] for k in ks):
        raise ValueError(
            f"each k must be from 1 to {distances.shape[1]}, the number of stored neighbors, got "
            f"{list(ks)}; raise search.k and search again for more"
        )
    if not (distances[:, 1:] >= distances[:, :-1]).all():
        raise ValueError("distances must ascend along each row: the first k are the nearest")
    totals = np.zeros((len(ks), len(temperatures), len(weights)))
    for rows in _row_blocks(len(targets)):
        knn = _knn_probs(distances[rows], values[rows] == targets[rows, None], ks, temperatures)
        totals += _sum_of_mixed(lm_log_probs[rows], knn, weights)
    return -totals / len(targets)


def knn_probs(
    distances: NDArray[np.float32],
    matches: NDArray[np.bool_],
    *,
    temperatures: Sequence[float],
) -> NDArray[np.float64]:
    """Return p_kNN of each target at several temperatures, from all of its neighbors.

    The exponential of `knn_log_probs`, except that a p_kNN below 1e-308 is 0.

    Args:
        distances: (n_queries, k), ascending, at least 0; +inf where a neighbor is missing.
        matches: (n_queries, k), whether the value of a neighbor is the target.
        temperatures: each above 0, in the unit of the distances.

    Returns:
        (n_temperatures, n_queries); NaN for a query with no neighbor at all.

    """
    _check_neighbors(distances, matches, matches)
    _check_temperatures(temperatures)
    ks, blocks = [distances.shape[1]], _row_blocks(len(distances))
    found = [_knn_probs(distances[r], matches[r], ks, temperatures)[0] for r in blocks]
    return np.concatenate(found, axis=1)


def mean_nll(
    lm_log_probs: NDArray[np.float64],
    knn_probs_of_targets: NDArray[np.float64],
    lmbdas: Sequence[float],
) -> NDArray[np.float64]:
    """Return the mean nll of the mixture for each temperature and lmbda, in nats a token.

    Args:
        lm_log_probs: (n_queries,), natural logarithms, finite.
        knn_probs_of_targets: (n_temperatures, n_queries), from `knn_probs`.
        lmbdas: weights on kNN, each in [0, 1).
    """
    weights = _check_lmbdas(lmbdas)
    totals = _sum_of_mixed(lm_log_probs, knn_probs_of_targets[None], weights)[0]
    return -totals / len(lm_log_probs)


def _knn_probs(
    distances: NDArray[np.float32],
    matches: NDArray[np.bool_],
    ks: Sequence[int],
    temperatures: Sequence[float],
) -> NDArray[np.float64]:
    """Return p_kNN of the target, (n_k, n_temperatures, n_queries); NaN without neighbors.

    The neighbors ascend, so one exponential for each serves every k: weights are summed between
    one k and the next, then accumulated.
    """
    borders, place = np.unique(ks, return_inverse=True)
    starts = np.concatenate(([0], borders[:-1]))
    nearest = np.where(np.isfinite(distances[:, :1]), distances[:, :1], 0.0)
    shifted = distances[:, : borders[-1]].astype(np.float64) - nearest
    matches = matches[:, : borders[-1]]
    weights = np.empty_like(shifted)
    probs = np.empty((len(ks), len(temperatures), len(distances)))
    for index, temperature in enumerate(temperatures):
        np.multiply(shifted, -1.0 / temperature, out=weights)
        np.exp(weights, out=weights)
        all_weights = np.add.reduceat(weights, starts, axis=1).cumsum(axis=1)
        weights *= matches
        hits = np.add.reduceat(weights, starts, axis=1).cumsum(axis=1)
        with np.errstate(invalid="ignore"):  # 0 / 0 = NaN: no neighbors
            probs[:, index] = (hits / all_weights)[:, place].T
    return probs


def _sum_of_mixed(
    lm_log_probs: NDArray[np.float64],
    knn_probs: NDArray[np.float64],
    lmbdas: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return sums over queries of log((1 - lmbda) p_LM + lmbda p_kNN), shaped as in `sweep`.

    Both parts are divided by the larger, so a mixture lies between min(lmbda, 1 - lmbda) and 1.
    Then many can be multiplied before one logarithm is taken, which is where the time would go.
    """
    with np.errstate(divide="ignore"):
        knn_log_probs = np.where(np.isnan(knn_probs), lm_log_probs, np.log(knn_probs))
    larger = np.maximum(lm_log_probs, knn_log_probs)
    lm_part = np.exp(lm_log_probs - larger)
    difference = np.exp(knn_log_probs - larger) - lm_part
    totals = np.empty((*knn_probs.shape[:2], len(lmbdas)))
    mixed = np.empty_like(lm_part)
    for index, lmbda in enumerate(lmbdas):
        if lmbda == 0:
            totals[:, :, index] = lm_log_probs.sum()
            continue
        np.multiply(difference, lmbda, out=mixed)
        np.add(mixed, lm_part, out=mixed)
        at_a_time = int(np.log(SMALLEST_PRODUCT) / np.log(min(lmbda, 1 - lmbda)))
        starts = np.arange(0, mixed.shape[2], max(at_a_time, 1))
        products = np.multiply.reduceat(mixed, starts, axis=2)
        totals[:, :, index] = np.log(products).sum(axis=2) + larger.sum(axis=2)
    return totals


def _log_sum_exp(scaled: NDArray[np.float64], *, empty: float = -np.inf) -> NDArray[np.float64]:
    """Return log sum exp(-scaled) of each row; `empty` where all of a row is +inf."""
    smallest = scaled.min(axis=1)
    some = np.isfinite(smallest)
    result = np.full(len(scaled), empty)
    sums = np.exp(smallest[some, None] - scaled[some]).sum(axis=1)
    result[some] = np.log(sums) - smallest[some]
    return result


def _row_blocks(n_rows: int) -> Iterator[slice]:
    return (slice(i, min(i + ROWS_AT_A_TIME, n_rows)) for i in range(0, n_rows, ROWS_AT_A_TIME))


def _check_neighbors(distances: NDArray, values: NDArray, targets: NDArray) -> None:
    if distances.ndim != 2 or distances.shape != values.shape or len(targets) != len(distances):
        raise ValueError(
            "expected distances (n_queries, k), values (n_queries, k) and targets (n_queries,), "
            f"got {distances.shape}, {values.shape} and {np.shape(targets)}"
        )
    if 0 in distances.shape:
        raise ValueError(f"expected at least one query and one neighbor, got {distances.shape}")
    if not (distances >= 0).all():
        raise ValueError("squared distances must be at least 0, got a negative one or NaN")


def _check_temperatures(temperatures: Sequence[float]) -> None:
    if not all(0 < temperature < np.inf for temperature in temperatures):
        raise ValueError(f"temperature must be above 0 and finite, got {list(temperatures)}")


def _check_lmbdas(lmbdas: ArrayLike) -> NDArray[np.float64]:
    weights = np.asarray(lmbdas, dtype=np.float64)
    outside = weights[~((weights >= 0) & (weights < 1))]
    if outside.size:
        raise ValueError(
            f"lmbda must be in [0, 1), got {outside.flat[0]}; at 1, a target that no neighbor has "
            "would make the perplexity infinite"
        )
    return weights
