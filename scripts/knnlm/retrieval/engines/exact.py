"""Exact search: every key is compared with every query, and every bit of the answer is defined.

A matrix product finds candidates fast but with rounding errors that depend on tiles, threads
and device. So more than k are kept, their distances are computed again by direct differences,
and a bound on the errors tells whether the true k nearest of a slice must be among them. Where
it cannot tell (as when many keys are identical), the query is compared with every key of the
slice directly. The result is therefore the same for all tiles, slices and parts: the k smallest
direct distances, equal ones in the order of their ids. The CPU sums differences in fp32, torch
devices in fp64: their distances agree within 1e-5 (relative), and so do their neighbors, but
for those whose distances are that close.

The metric is squared L2, or inner product (ip). A distance of the latter is the product with its
sign turned, so that the nearest is the largest product: everything else is the same.

Memory beyond the results: one slice of keys, SLICE_BYTES in fp32 unless slice_rows says
otherwise, and the candidates of the queries, 12 (k + margin) bytes each.
"""

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Datastore
from knnlm.retrieval.engines.nearest import no_neighbors, sort_neighbors
from knnlm.retrieval.engines.scorers import FaissScorer, Scorer, TorchScorer
from knnlm.retrieval.sampling import Entries, group_by_range

TILE_BYTES = 2 << 30  # of fp32 scores on a GPU at a time
CONFIDENCE = 8.0  # standard deviations of accumulated rounding errors that are allowed for


def search_exact(
    queries: NDArray[np.float32],
    datastore: Datastore,
    *,
    k: int,
    slice_rows: int | None = None,
    tile_bytes: int = TILE_BYTES,
    device: str = "cpu",
    metric: str = "l2",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and distances of the k nearest entries of each query.

    Args:
        queries: (n_queries, dim), finite.
        datastore: what is searched, its `rows` alone; they are read once, in order.
        k: number of neighbors, at most the number of entries.
        slice_rows: keys compared at a time, 512 MiB of them in fp32 if None; no bit of the
            result depends on it.
        tile_bytes: scores on a torch device at a time; no bit of the result depends on it.
        device: where keys are compared: "cpu" (faiss) or a torch device such as "cuda".
        metric: l2 or ip.

    Returns:
        ids (n_queries, k) and distances (n_queries, k), squared L2 or inner products with their
        sign turned, ascending, equal distances by ascending id; id -1 and distance +inf where
        the rows are fewer than k.

    Raises:
        ValueError: if k, a shape or a query is not as above, or inner products say nothing.
    """
    queries = check_search(queries, datastore, k=k)
    ids, distances = no_neighbors(len(queries), k)
    on_cpu = device == "cpu"
    slices = datastore.slices(slice_rows) if on_cpu else datastore.stored_slices(slice_rows)
    for start, keys in slices:
        scorer = scorer_of(keys, device=device, tile_bytes=tile_bytes, metric=metric)
        add_keys(ids, distances, queries, start, scorer)
    if metric == "ip":
        check_products(distances, name=str(datastore.folder))
    return ids, distances


def scorer_of(keys: NDArray, *, device: str, tile_bytes: int, metric: str = "l2") -> Scorer:
    """Return the scorer of some keys: in fp32 on the CPU, in their dtype on a torch device."""
    if device == "cpu":
        return FaissScorer(np.ascontiguousarray(keys, dtype=np.float32), metric=metric)
    return TorchScorer(keys, device=device, tile_bytes=tile_bytes, metric=metric)


def check_search(
    queries: NDArray[np.float32], datastore: Datastore, *, k: int
) -> NDArray[np.float32]:
    """Return the queries as faiss needs them, contiguous fp32, after checking them.

    Raises:
        ValueError: if k is larger than the datastore, or a query is of another width or not
            finite.
    """
    name = str(datastore.folder)
    return check_queries(queries, datastore.entries, k=k, dim=datastore.dim, name=name)


def check_queries(
    queries: NDArray[np.float32], entries: Entries, *, k: int, dim: int, name: str
) -> NDArray[np.float32]:
    """Return the same for keys that need not be stored, called `name` in errors."""
    if not 1 <= k <= len(entries):
        raise ValueError(
            f"k must be from 1 to {len(entries):,}, the number of entries of "
            f"{entries.called(name)}, got {k:,}; lower search.k, or store more text or a larger "
            "share"
        )
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(
            f"expected queries (n_queries, {dim}) for {name}, got {queries.shape}; use the model "
            "and the site that it was built with"
        )
    if not np.isfinite(queries).all():
        raise ValueError("expected finite queries, got infinity or NaN; the model has diverged")
    return np.ascontiguousarray(queries, dtype=np.float32)


def check_products(distances: NDArray[np.float32], *, name: str) -> None:
    """Check that inner products tell neighbors apart at all.

    Args:
        distances: (n_queries, k), inner products with their sign turned; +inf where missing.
        name: of the datastore, for the error.

    Raises:
        ValueError: if every product is 0, as with keys that are all zero.
    """
    if distances.size and not distances[np.isfinite(distances)].any():
        raise ValueError(
            f"expected keys of {name} that differ in their inner products with the queries, got "
            "0 for every neighbor of every query, as with keys that are all zero; build the "
            "datastore again from another site, or use the metric l2"
        )


def check_norms(query_norm: float, key_norm: float) -> None:
    """Check that inner products of vectors of these norms, at most, stay within fp32.

    Raises:
        ValueError: with both norms.
    """
    largest = float(np.finfo(np.float32).max)
    if not query_norm * key_norm <= largest:
        raise ValueError(
            f"expected inner products of at most {largest:.2g}, the largest number of fp32, got "
            f"queries with a norm of up to {query_norm:.2g} and keys of up to {key_norm:.2g}; take "
            "the keys after a layer norm, or use the metric l2"
        )


def full_distances(
    queries: NDArray[np.float32],
    datastore: Datastore,
    ids: NDArray[np.int64],
    *,
    slice_rows: int | None = None,
    metric: str = "l2",
) -> NDArray[np.float32]:
    """Return the distance of each query to each of its entries, in fp32.

    Sums of squared differences from the stored keys: identical keys have identical distances,
    which the matrix product |q|^2 - 2qk + |k|^2 does not promise. Of the metric ip they are sums
    of products, with the sign turned. The keys are read in order.

    Args:
        queries: (n_queries, dim).
        datastore: where the keys are; the ids are among its `rows`.
        ids: (n_queries, k); -1 where a neighbor is missing.
        slice_rows: as for `search_exact`.
        metric: l2 or ip.

    Returns:
        (n_queries, k), +inf where the id is -1.
    """
    distances = np.full(ids.size, np.inf, dtype=np.float32)
    compare = {"l2": faiss.pairwise_indexed_L2sqr, "ip": faiss.pairwise_indexed_inner_product}
    slice_rows = min(slice_rows or datastore.slice_rows, max(1, len(datastore.rows)))
    offsets = np.where(ids < 0, -1, ids - datastore.rows.start).ravel()
    groups = dict(group_by_range(offsets, slice_rows))
    for start, keys in datastore.slices(slice_rows):
        places = groups.get((start - datastore.rows.start) // slice_rows)
        if places is not None:
            found = np.empty(len(places), dtype=np.float32)
            rows, columns = places // ids.shape[1], ids.ravel()[places] - start
            arrays = (queries, rows, keys, columns, found)
            pointers = (faiss.swig_ptr(array) for array in arrays)
            compare[metric](datastore.dim, len(places), *pointers)
            distances[places] = found if metric == "l2" else -found
    return distances.reshape(ids.shape)


def add_keys(
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
    queries: NDArray[np.float32],
    start: int,
    scorer: Scorer,
) -> None:
    """Put the keys of a slice among the nearest of the slices before it, in place.

    Args:
        ids: (n_queries, k), all below `start`; -1 where a neighbor is missing.
        distances: (n_queries, k), +inf where missing.
        queries: (n_queries, dim), as `check_queries` returns them.
        start: id of the first key of the slice.
        scorer: of the slice.
    """
    n = min(ids.shape[1] + scorer.margin, scorer.n_keys)
    limit = _limit(queries, distances, scorer)
    rough, columns = scorer.candidates(queries, n, limit)
    for first in range(0, len(queries), scorer.queries_at_a_time):
        rows = slice(first, first + scorer.queries_at_a_time)
        near = np.where(rough[rows] <= limit[rows, None], columns[rows], -1)
        _merge(ids[rows], distances[rows], queries[rows], start, scorer, near)
    if n < scorer.n_keys:
        limit = _limit(queries, distances, scorer)
        for query in np.flatnonzero(rough[:, -1] <= limit):
            _scan(ids[query], distances[query], queries[query], start, scorer)


def _merge(
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
    queries: NDArray[np.float32],
    start: int,
    scorer: Scorer,
    near: NDArray[np.int64],
) -> None:
    """Put the near columns of a slice among the neighbors, in place."""
    near = near[:, : (near >= 0).sum(axis=1).max()]  # rough distances ascend: the rest is -1
    near.sort(axis=1)  # keys are fetched in the order in which they lie in memory
    known = int((ids >= 0).any(axis=0).sum())  # missing ones come last
    every_id = np.concatenate([ids[:, :known], np.where(near >= 0, near + start, -1)], axis=1)
    every = np.concatenate([distances[:, :known], scorer.direct(queries, near)], axis=1)
    every_id, every = sort_neighbors(every_id, every, k=ids.shape[1])
    ids[:, : every.shape[1]], distances[:, : every.shape[1]] = every_id, every


def _scan(
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
    query: NDArray[np.float32],
    start: int,
    scorer: Scorer,
) -> None:
    """Compare one query with every key of a slice, and replace its neighbors in place."""
    direct = scorer.direct(query[None], np.arange(scorer.n_keys)[None])[0]
    near = np.flatnonzero(direct <= distances[-1])
    before = ids < start
    every_id = np.concatenate([ids[before], near + start])
    every = np.concatenate([distances[before], direct[near]])
    found = sort_neighbors(every_id[None], every[None], k=len(ids))
    ids[:], distances[:] = found[0][0], found[1][0]


def _limit(
    queries: NDArray[np.float32], distances: NDArray[np.float32], scorer: Scorer
) -> NDArray[np.float64]:
    """Return the rough distance of each query above which a key is none of its k nearest.

    A key within the k-th distance t has a norm of at most |q| + sqrt(t), so the terms of
    |q|^2 - 2qk + |k|^2 add up to at most (2 |q| + sqrt(t))^2, and those of the direct distance
    to t. A sum of n rounded terms is off by at most CONFIDENCE * sqrt(n) errors of a step of
    them, but for a chance of about 2 n exp(-CONFIDENCE^2 / 2) = n 3e-14: Higham and Mary (2019).
    The terms of an inner product, rough or direct, add up to at most |q| |k|.
    """
    last = distances[:, -1].astype(np.float64)
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    if scorer.metric == "l2":
        terms = (2 * norms + np.sqrt(last)) ** 2 + last
    else:
        check_norms(float(norms.max(initial=0)), scorer.largest_norm)
        terms = 2 * norms * scorer.largest_norm
    n_roundings = queries.shape[1] + 4
    return last + CONFIDENCE * np.sqrt(n_roundings) * scorer.error * terms
