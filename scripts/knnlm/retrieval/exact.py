"""Exact search: every key is compared with every query, and every bit of the answer is defined.

A matrix product finds candidates fast but with rounding errors that depend on tiles, threads
and device. So more than k are kept, their distances are computed again by direct differences,
and a bound on the errors tells whether the true k nearest must be among them. Where it cannot
tell (as when many keys are identical), the query is compared with every key directly. The
result is therefore the same for all tile sizes, on CPU and GPU: the k smallest direct
distances, equal ones in the order of their ids.
"""

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Datastore, group_by_range

MARGIN = 32  # candidates beyond k
MERGED_AT_A_TIME = 64  # queries whose candidates, some hundred kB, stay in the cache
SCORES_A_TILE = 1 << 29  # fp32 scores on the GPU at a time: 2 GiB
HALF_ULP = 2.0**-24  # largest relative error of one fp32 operation
CONFIDENCE = 8.0  # standard deviations of accumulated rounding errors that are allowed for
LARGEST_ID = 2**32 - 2  # ids and distances are sorted as one 64-bit number


def search_exact(
    queries: NDArray[np.float32],
    datastore: Datastore,
    *,
    k: int,
    slice_rows: int | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and squared distances of the k nearest entries of each query.

    Args:
        queries: (n_queries, dim), finite.
        datastore: what is searched; it is read once, in order.
        k: number of neighbors, at most the number of entries.
        slice_rows: keys converted to fp32 at a time, 512 MiB of them if None; no bit of the
            result depends on it.
        device: where candidates are found: "cpu" (faiss) or a torch device such as "cuda".

    Returns:
        ids (n_queries, k) and squared L2 distances (n_queries, k), ascending, equal distances
        by ascending id.

    Raises:
        ValueError: if k, a shape or a query is not as above.
    """
    queries = check_search(queries, datastore, k=k)
    ids = np.full((len(queries), k), -1)
    distances = np.full((len(queries), k), np.inf, dtype=np.float32)
    floor = np.full(len(queries), np.inf)  # no rough distance that was left out is smaller
    for start, keys in datastore.slices(slice_rows):
        n_candidates = min(k + MARGIN, len(keys))
        rough, columns = _candidates(queries, keys, n_candidates, device)
        if n_candidates < len(keys):
            np.minimum(floor, rough[:, -1], out=floor)
        for first in range(0, len(queries), MERGED_AT_A_TIME):
            rows = slice(first, first + MERGED_AT_A_TIME)
            candidates = rough[rows], columns[rows]
            _merge(queries[rows], keys, start, candidates, ids[rows], distances[rows])
    open_ones = np.flatnonzero(floor <= _limit(queries, distances))
    _scan(queries, datastore, open_ones, ids, distances, slice_rows)
    return ids, distances


def check_search(
    queries: NDArray[np.float32], datastore: Datastore, *, k: int
) -> NDArray[np.float32]:
    """Return the queries as faiss needs them, contiguous fp32, after checking them.

    Raises:
        ValueError: if k is larger than the datastore, or a query is of another width or not
            finite.
    """
    if not 1 <= k <= datastore.n_entries:
        raise ValueError(
            f"k must be from 1 to {datastore.n_entries:,}, the number of entries of "
            f"{datastore.folder}, got {k:,}; lower search.k or store more text"
        )
    if datastore.n_entries > LARGEST_ID:
        raise ValueError(
            f"expected at most {LARGEST_ID:,} entries in {datastore.folder}, got "
            f"{datastore.n_entries:,}; split the text into several datastores"
        )
    if queries.ndim != 2 or queries.shape[1] != datastore.dim:
        raise ValueError(
            f"expected queries (n_queries, {datastore.dim}) for {datastore.folder}, got "
            f"{queries.shape}; use the model and the site that it was built with"
        )
    if not np.isfinite(queries).all():
        raise ValueError("expected finite queries, got infinity or NaN; the model has diverged")
    return np.ascontiguousarray(queries, dtype=np.float32)


def squared_distances(
    queries: NDArray[np.float32],
    datastore: Datastore,
    ids: NDArray[np.int64],
    *,
    slice_rows: int | None = None,
) -> NDArray[np.float32]:
    """Return the squared L2 distance of each query to each of its entries, in fp32.

    Sums of squared differences from the stored keys: identical keys have identical distances,
    which the matrix product |q|^2 - 2qk + |k|^2 does not promise. The keys are read in order.

    Args:
        queries: (n_queries, dim).
        datastore: where the keys are.
        ids: (n_queries, k); -1 where a neighbor is missing.
        slice_rows: as for `search_exact`.

    Returns:
        (n_queries, k), +inf where the id is -1.
    """
    distances = np.full(ids.size, np.inf, dtype=np.float32)
    slice_rows = min(slice_rows or datastore.slice_rows, datastore.n_entries)
    groups = dict(group_by_range(ids.ravel(), slice_rows))
    for start, keys in datastore.slices(slice_rows):
        if start // slice_rows in groups:
            places = groups[start // slice_rows]
            found = np.empty(len(places), dtype=np.float32)
            rows, columns = places // ids.shape[1], ids.ravel()[places] - start
            arrays = (queries, rows, keys, columns, found)
            faiss.pairwise_indexed_L2sqr(
                datastore.dim, len(places), *(faiss.swig_ptr(array) for array in arrays)
            )
            distances[places] = found
    return distances.reshape(ids.shape)


def sort_neighbors(
    ids: NDArray[np.int64], distances: NDArray[np.float32], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k nearest of each row, ascending; equal distances by ascending id.

    The bits of floats at least 0 have the order of the floats, so a distance and an id make one
    integer, and one sort does both. A missing neighbor (-1, +inf) comes last.
    """
    bits = (np.maximum(distances, 0) + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    packed = (bits.astype(np.uint64) << np.uint64(32)) | ids.astype(np.uint32)
    packed.sort(axis=1)
    packed = packed[:, :k]
    ids = packed.astype(np.uint32).astype(np.int64)
    ids[ids > LARGEST_ID] = -1
    return ids, (packed >> np.uint64(32)).astype(np.uint32).view(np.float32)


def _candidates(
    queries: NDArray[np.float32], keys: NDArray[np.float32], n: int, device: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the n smallest rough distances of each query, ascending, and their rows in `keys`."""
    if device == "cpu":
        return faiss.knn(queries, keys, n)
    return _candidates_torch(queries, keys, n, device)


def _candidates_torch(
    queries: NDArray[np.float32], keys: NDArray[np.float32], n: int, device: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the same on a torch device.

    The n-th best so far is a threshold: after the first tiles almost nothing of a tile is below
    it, and only what is gets merged.
    """
    q = torch.from_numpy(queries).to(device)
    q_norms = (q**2).sum(1, keepdim=True)
    best = torch.full((len(q), n), torch.inf, device=device)
    best_rows = torch.full((len(q), n), -1, device=device)
    tile_rows = max(1, SCORES_A_TILE // len(q))
    for start, tile in enumerate(torch.from_numpy(keys).split(tile_rows)):
        x = tile.to(device)
        scores = torch.addmm((x**2).sum(1), q, x.T, alpha=-2).add_(q_norms)
        i, j = (scores < best[:, -1:]).nonzero(as_tuple=True)
        counts = torch.bincount(i, minlength=len(q))
        places = torch.arange(len(i), device=device) - (counts.cumsum(0) - counts)[i]
        found = torch.full((len(q), int(counts.max())), torch.inf, device=device)
        found_rows = torch.full(found.shape, -1, device=device)
        found[i, places], found_rows[i, places] = scores[i, j], j + start * tile_rows
        best, order = torch.cat([best, found], 1).topk(n, largest=False)
        best_rows = torch.cat([best_rows, found_rows], 1).gather(1, order)
    return best.cpu().numpy(), best_rows.cpu().numpy()


def _merge(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    start: int,
    candidates: tuple[NDArray[np.float32], NDArray[np.int64]],
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
) -> None:
    """Put the candidates of a slice that starts at entry `start` among the neighbors, in place."""
    rough, columns = candidates
    near = np.where(rough <= _limit(queries, distances)[:, None], columns, -1)
    near = near[:, : (near >= 0).sum(axis=1).max()]  # rough distances ascend: the rest is -1
    near.sort(axis=1)  # keys are fetched in the order in which they lie in memory
    known = min(start, ids.shape[1])
    every_id = np.concatenate([ids[:, :known], np.where(near >= 0, near + start, -1)], axis=1)
    every = np.concatenate([distances[:, :known], _direct(queries, keys, near)], axis=1)
    every_id, every = sort_neighbors(every_id, every, k=ids.shape[1])
    ids[:, : every.shape[1]], distances[:, : every.shape[1]] = every_id, every


def _limit(queries: NDArray[np.float32], distances: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the rough distance of each query above which a key is none of its k nearest.

    A key within the k-th distance t has a norm of at most |q| + sqrt(t), so the terms of
    |q|^2 - 2qk + |k|^2 add up to at most (2 |q| + sqrt(t))^2, and those of the direct distance
    to t. A sum of n rounded terms is off by at most CONFIDENCE * sqrt(n) half ulps of them, but
    for a chance of about 2 n exp(-CONFIDENCE^2 / 2) = n 3e-14: Higham and Mary (2019).
    """
    last = distances[:, -1].astype(np.float64)
    reach = 2 * np.linalg.norm(queries.astype(np.float64), axis=1) + np.sqrt(last)
    n_roundings = queries.shape[1] + 4
    return last + CONFIDENCE * np.sqrt(n_roundings) * HALF_ULP * (reach**2 + last)


def _scan(
    queries: NDArray[np.float32],
    datastore: Datastore,
    open_ones: NDArray[np.int64],
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
    slice_rows: int | None,
) -> None:
    """Compare the open queries with every key, and replace their neighbors in place."""
    if not len(open_ones):
        return
    k = ids.shape[1]
    found = {
        query: (np.empty((1, 0), np.int64), np.empty((1, 0), np.float32)) for query in open_ones
    }
    for start, keys in datastore.slices(slice_rows):
        columns = np.arange(len(keys))[None]
        for query, (old_ids, old) in found.items():
            direct = _direct(queries[query : query + 1], keys, columns)
            near = direct[0] <= distances[query, -1]
            every_id = np.concatenate([old_ids, columns[:, near] + start], axis=1)
            every = np.concatenate([old, direct[:, near]], axis=1)
            found[query] = sort_neighbors(every_id, every, k=k)
    for query, neighbors in found.items():
        ids[query], distances[query] = neighbors[0][0], neighbors[1][0]


def _direct(
    queries: NDArray[np.float32], keys: NDArray[np.float32], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the squared distance of each query to its rows of `keys`; +inf where that is -1."""
    columns = np.ascontiguousarray(columns)
    distances = np.empty(columns.shape, dtype=np.float32)
    arrays = (distances, queries, keys, columns)
    faiss.fvec_L2sqr_by_idx(
        *(faiss.swig_ptr(array) for array in arrays), queries.shape[1], *columns.shape
    )
    return distances
