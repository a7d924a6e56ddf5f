"""The order of neighbors: ascending distance, equal distances by ascending id, in every engine.

The distance of two vectors is their squared L2 distance, or for the metric `ip` their inner
product with its sign turned, so that the largest product is nearest and nothing else needs to know
the metric. NumPy alone, so that the jobs that merge lists of neighbors start in a moment.
"""

import numpy as np
from numpy.typing import NDArray

LARGEST_PACKED_ID = 2**32 - 2  # up to it an id and a distance are sorted as one 64-bit number
METRICS = ("l2", "ip")  # squared L2 distance, and inner product
SIGN = np.uint32(1 << 31)  # of the bits of an fp32 number
MISSING = np.iinfo(np.int64).max  # what the id -1 of a missing neighbor is sorted as


def no_neighbors(n_queries: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids and distances (n_queries, k) of neighbors that are all missing."""
    ids = np.full((n_queries, k), -1, dtype=np.int64)
    return ids, np.full((n_queries, k), np.inf, dtype=np.float32)


def sort_neighbors(
    ids: NDArray[np.int64], distances: NDArray[np.float32], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k nearest of each row, ascending; equal distances by ascending id.

    The bits of floats at least 0 have the order of the floats, and those of floats below 0 too
    once they are turned. So a distance and an id of 32 bits make one integer, and one sort does
    both. Larger ids take two sorts, and some four times as long. A missing neighbor (-1, +inf)
    comes last.

    Args:
        ids: (n_queries, n), below 2**63.
        distances: (n_queries, n), no NaN.
        k: columns of the result, or n if that is less.
    """
    distances = distances + np.float32(0)  # -0.0 becomes 0.0
    if ids.max(initial=-1) > LARGEST_PACKED_ID:
        order = np.lexsort((np.where(ids < 0, MISSING, ids), distances), axis=1)[:, :k]
        return tuple(np.take_along_axis(array, order, axis=1) for array in (ids, distances))
    signed, bits = distances.min(initial=0) < 0, distances.view(np.uint32)
    if signed:
        bits = bits ^ (SIGN | _spread_sign(bits))
    packed = bits.astype(np.uint64) << np.uint64(32)
    packed |= ids.astype(np.uint32)
    packed.sort(axis=1)
    packed = packed[:, :k]
    ids = packed.astype(np.uint32).astype(np.int64)
    ids[ids > LARGEST_PACKED_ID] = -1
    bits = (packed >> np.uint64(32)).astype(np.uint32)
    if signed:
        bits ^= SIGN | ~_spread_sign(bits)
    return ids, bits.view(np.float32)


def _spread_sign(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return all ones where the highest bit is set, else 0."""
    return (bits.view(np.int32) >> 31).view(np.uint32)


def below_largest(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far each inner product of a row lies below the largest: at least 0, ascending.

    A softmax over inner products is the same over these differences, which every reader of squared
    distances can take: of equal values, unit and sign.

    Args:
        distances: (n_queries, k), inner products with their sign turned, in any order; +inf where
            a neighbor is missing.
    """
    smallest = distances.min(axis=1, keepdims=True, initial=np.inf)
    return distances - np.where(np.isfinite(smallest), smallest, np.float32(0))
