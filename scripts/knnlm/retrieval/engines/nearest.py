"""The order of neighbors: ascending distance, equal distances by ascending id, in every engine.

NumPy alone, so that the jobs that merge lists of neighbors start in a moment.
"""

import numpy as np
from numpy.typing import NDArray

LARGEST_PACKED_ID = 2**32 - 2  # up to it an id and a distance are sorted as one 64-bit number
MISSING = np.iinfo(np.int64).max  # what the id -1 of a missing neighbor is sorted as


def no_neighbors(n_queries: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids and distances (n_queries, k) of neighbors that are all missing."""
    ids = np.full((n_queries, k), -1, dtype=np.int64)
    return ids, np.full((n_queries, k), np.inf, dtype=np.float32)


def sort_neighbors(
    ids: NDArray[np.int64], distances: NDArray[np.float32], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k nearest of each row, ascending; equal distances by ascending id.

    The bits of floats at least 0 have the order of the floats, so a distance and an id of 32
    bits make one integer, and one sort does both. Larger ids take two sorts, and some four times
    as long. A missing neighbor (-1, +inf) comes last.

    Args:
        ids: (n_queries, n), below 2**63.
        distances: (n_queries, n), at least 0, but for rounding errors.
        k: columns of the result, or n if that is less.
    """
    distances = np.maximum(distances, 0) + np.float32(0)  # -0.0 becomes 0.0
    if ids.max(initial=-1) > LARGEST_PACKED_ID:
        order = np.lexsort((np.where(ids < 0, MISSING, ids), distances), axis=1)[:, :k]
        return tuple(np.take_along_axis(array, order, axis=1) for array in (ids, distances))
    packed = distances.view(np.uint32).astype(np.uint64) << np.uint64(32)
    packed |= ids.astype(np.uint32)
    packed.sort(axis=1)
    packed = packed[:, :k]
    ids = packed.astype(np.uint32).astype(np.int64)
    ids[ids > LARGEST_PACKED_ID] = -1
    return ids, (packed >> np.uint64(32)).astype(np.uint32).view(np.float32)
