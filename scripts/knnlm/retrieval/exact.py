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

MARGIN = 64  # candidates beyond k
SCORES_A_TILE = 1 << 29  # fp32 scores on the GPU at a time: 2 GiB
HALF_ULP = 2.0**-24  # largest relative error of one fp32 operation
LARGEST_ID = 2**32 - 2  # ids and distances are sorted as one 64-bit number


def search_exact(
    queries: NDArray[np.float32],
    datastore: Datastore,
    *,
    k: int,
    slice_rows: int,
    device: str = "cpu",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and squared distances of the k nearest entries of each query.

    Args:
        queries: (n_queries, dim), finite.
        datastore: what is searched; it is read twice, in order.
        k: number of neighbors, at most the number of entries.
        slice_rows: keys converted to fp32 at a time; the memory, but no bit of the result,
            depends on it.
        device: where candidates are found: "cpu" (faiss) or a torch device such as "cuda".

    Returns:
        ids (n_queries, k) and squared L2 distances (n_queries, k), ascending, equal distances
        by ascending id.

    Raises:
        ValueError: if k, a shape or a query is not as above.
    """
    queries = check_search(queries, datastore, k=k)
    n_candidates = min(k + MARGIN, datastore.n_entries)
    if device == "cpu":
        rough, ids = _candidates(queries, datastore, n_candidates, slice_rows)
    else:
        rough, ids = _candidates_torch(queries, datastore, n_candidates, slice_rows, device)
    distances = squared_distances(queries, datastore, ids, slice_rows=slice_rows)
    ids, distances = sort_neighbors(ids, distances, k=k)
    if n_candidates < datastore.n_entries:
        open_ones = np.flatnonzero(rough <= distances[:, -1] + _error_bound(queries, distances))
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
    slice_rows: int,
) -> NDArray[np.float32]:
    """Return the squared L2 distance of each query to each of its entries, in fp32.

    Sums of squared differences from the stored keys: identical keys have identical distances,
    which the matrix product |q|^2 - 2qk + |k|^2 does not promise. The keys are read in order.

    Args:
        queries: (n_queries, dim).
        datastore: where the keys are.
        ids: (n_queries, k); -1 where a neighbor is missing.
        slice_rows: keys converted to fp32 at a time.

    Returns:
        (n_queries, k), +inf where the id is -1.
    """
    flat = ids.ravel()
    distances = np.full(flat.shape, np.inf, dtype=np.float32)
    groups = dict(group_by_range(flat, slice_rows))
    for start, keys in datastore.slices(slice_rows):
        places = groups.pop(start // slice_rows, None)
        if places is not None:
            rows, columns = places // ids.shape[1], flat[places] - start
            distances[places] = _pairwise(queries, rows, keys, columns)
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
    queries: NDArray[np.float32], datastore: Datastore, k: int, slice_rows: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k-th smallest rough distance of each query, and the ids of the k smallest."""
    best = None
    for start, keys in datastore.slices(slice_rows):
        rough, ids = faiss.knn(queries, keys, k)
        np.add(ids, start, out=ids, where=ids >= 0)  # -1: the slice has fewer than k rows
        found = (rough, ids)
        if best is not None:
            pairs = zip(best, found, strict=True)
            found = faiss.merge_knn_results(*(np.stack(pair) for pair in pairs))
        best = found
    return best[0][:, -1], best[1]


def _candidates_torch(
    queries: NDArray[np.float32], datastore: Datastore, k: int, slice_rows: int, device: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the same as `_candidates`, found on a torch device.

    The k-th best so far is a threshold: after the first tiles almost nothing of a tile is below
    it, and only what is gets merged.
    """
    q = torch.from_numpy(queries).to(device)
    best = torch.full((len(q), k), torch.inf, device=device)
    best_ids = torch.full((len(q), k), -1, device=device)
    for start, keys in datastore.slices(slice_rows):
        tiles = torch.from_numpy(keys).to(device).split(max(1, SCORES_A_TILE // len(q)))
        for tile in tiles:
            scores = torch.addmm((tile**2).sum(1), q, tile.T, alpha=-2).add_((q**2).sum(1)[:, None])
            rows, columns = (scores < best[:, -1:]).nonzero(as_tuple=True)
            counts = torch.bincount(rows, minlength=len(q))
            places = torch.arange(len(rows), device=device) - (counts.cumsum(0) - counts)[rows]
            found = torch.full((len(q), int(counts.max())), torch.inf, device=device)
            found_ids = torch.full(found.shape, -1, device=device)
            found[rows, places] = scores[rows, columns]
            found_ids[rows, places] = columns + start
            best, order = torch.cat([best, found], 1).topk(k, largest=False)
            best_ids = torch.cat([best_ids, found_ids], 1).gather(1, order)
            start += len(tile)
    return best[:, -1].cpu().numpy(), best_ids.cpu().numpy()


def _error_bound(
    queries: NDArray[np.float32], distances: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return how far below its direct distance the rough one of a neighbor may lie.

    A key within the k-th distance t has a norm of at most |q| + sqrt(t). Each of the sums of
    dim products that make up |q|^2 - 2qk + |k|^2, and the direct one, is off by at most
    (dim + 4) half ulps of its terms, which together are at most 4 (|q| + |k|)^2.
    """
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    reach = 2 * norms + np.sqrt(distances[:, -1].astype(np.float64))
    return (queries.shape[1] + 4) * HALF_ULP * 4 * reach**2


def _scan(
    queries: NDArray[np.float32],
    datastore: Datastore,
    open_ones: NDArray[np.int64],
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
    slice_rows: int,
) -> None:
    """Compare the open queries with every key, and replace their neighbors in place."""
    if not len(open_ones):
        return
    k = ids.shape[1]
    found = {
        query: (np.empty((1, 0), np.int64), np.empty((1, 0), np.float32)) for query in open_ones
    }
    for start, keys in datastore.slices(slice_rows):
        columns = np.arange(len(keys))
        for query, (old_ids, old) in found.items():
            direct = _pairwise(queries, np.full(len(keys), query), keys, columns)
            near = np.flatnonzero(direct <= distances[query, -1])
            found[query] = sort_neighbors(
                np.append(old_ids, near + start)[None], np.append(old, direct[near])[None], k=k
            )
    for query, neighbors in found.items():
        ids[query], distances[query] = neighbors[0][0], neighbors[1][0]


def _pairwise(
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    keys: NDArray[np.float32],
    columns: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return |queries[rows[i]] - keys[columns[i]]|^2 for each i, by direct differences."""
    rows, columns = np.ascontiguousarray(rows), np.ascontiguousarray(columns)
    distances = np.empty(len(rows), dtype=np.float32)
    arrays = (queries, rows, keys, columns, distances)
    faiss.pairwise_indexed_L2sqr(
        queries.shape[1], len(rows), *(faiss.swig_ptr(array) for array in arrays)
    )
    return distances
