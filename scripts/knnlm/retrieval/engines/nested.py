"""Nested shares of one datastore: their neighbors for about the cost of one search of the whole.

The k nearest in a share are not in general among the k nearest of the whole. But of what a share
adds to the next smaller one, only keys nearer than the k-th of that smaller share count. So each
key is compared once, in the increment that it belongs to (its level), and little of the larger
increments is kept: with m shares of equal steps some k (1 + 1/2 + ... + 1/m) keys of a query.

Exact search has the bounds on rounding errors of `knnlm.retrieval.engines.exact`, so the bits of
every distance are those of a search of each share. Inverted files are those of the whole: a share
has its clusters and its code, and the keys of the share alone in its lists.
"""

from collections.abc import Callable, Iterable, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Datastore
from knnlm.retrieval.engines.exact import (
    TILE_BYTES,
    add_keys,
    check_search,
    limit_of,
    scorer_of,
)
from knnlm.retrieval.engines.inverted_file import search_index
from knnlm.retrieval.engines.nearest import NO_LEVEL, no_neighbors, sort_neighbors
from knnlm.retrieval.engines.scorers import Scorer

CHUNK = 256  # queries whose neighbors are sorted together, and stay in the cache
Found = tuple[NDArray[np.int64], NDArray[np.float32]]  # ids, or columns, and distances


def search_nested(
    queries: NDArray[np.float32],
    datastore: Datastore,
    levels: NDArray[np.uint8],
    *,
    k: int,
    slice_rows: int | None = None,
    tile_bytes: int = TILE_BYTES,
    device: str = "cpu",
    metric: str = "l2",
) -> Found:
    """Return the entries that are among the k nearest of a query in any of the shares.

    Those of share j are the first k whose level is at most j.

    Memory beyond the result: a slice of keys in fp32 and its largest increment twice, and
    4 x k x levels + 12 x n bytes a query.

    Args:
        queries: (n_queries, dim), finite.
        datastore: what is searched, its `rows` alone; they are read once, in order.
        levels: (n_entries,), the number of the smallest share that holds an entry, from 0;
            NO_LEVEL if none does.
        k: number of neighbors in each share, at most the number of entries.
        slice_rows: as for `search_exact`; no bit of the result depends on it.
        tile_bytes: as for `search_exact`.
        device: as for `search_exact`.
        metric: l2 or ip.

    Returns:
        ids (n_queries, n) and distances (n_queries, n), ascending, equal distances by ascending
        id; id -1 and distance +inf behind the last.

    Raises:
        ValueError: see `search_exact`.
    """
    queries = check_search(queries, datastore, k=k)
    n_levels = int(levels.max(initial=0, where=levels < NO_LEVEL)) + 1
    nested = _Nested(len(queries), n_levels, k=k)
    on_cpu = device == "cpu"
    slices = datastore.slices(slice_rows) if on_cpu else datastore.stored_slices(slice_rows)
    for start, keys in slices:
        of_slice = levels[start : start + len(keys)]

        def increments(start: int = start, keys: NDArray = keys, of_slice: NDArray = of_slice):
            for level in range(n_levels):
                columns = np.flatnonzero(of_slice == level)
                named = {"device": device, "tile_bytes": tile_bytes, "metric": metric}
                scorer = scorer_of(keys[columns], **named)
                yield lambda last, c=columns, s=scorer: _within(queries, start + c, s, last, k=k)

        nested.add(increments())
    return nested.found()


def search_nested_lists(
    queries: NDArray[np.float32],
    indexes: Sequence[faiss.IndexIVF],
    datastore: Datastore,
    *,
    k: int,
    n_probes: int,
) -> Found:
    """Return the entries that an inverted file finds for a query in any of the shares.

    Args:
        queries: (n_queries, dim), finite.
        indexes: one inverted file with the keys of each level.
        datastore: the one that they were built from.
        k: number of neighbors in each share.
        n_probes: clusters that are read for a query.

    Returns:
        As `search_nested`; distances are those of the codes.
    """
    nested = _Nested(len(queries), len(indexes), k=k)
    named = {"k": k, "n_probes": n_probes}
    nested.add(lambda _, one=one: search_index(queries, one, datastore, **named) for one in indexes)
    return nested.found()


class _Nested:
    """What was found for some queries at each level so far.

    Attributes:
        ids, distances: of each level (n_queries, n), in no order; -1 and +inf where there is none.
        nearest: of each share the k least distances (n_queries, at most k), the largest last.
    """

    def __init__(self, n_queries: int, n_levels: int, *, k: int) -> None:
        none, far = no_neighbors(n_queries, 0)
        self.n_queries, self.k = n_queries, k
        self.ids, self.distances, self.nearest = ([a] * n_levels for a in (none, far, far))

    def add(self, increments: Iterable[Callable[[NDArray[np.float32]], Found]]) -> None:
        """Put the keys of a slice among the nearest.

        Args:
            increments: for each level a function of the distances that count, (n_queries,): it
                returns at least all of its k nearest keys that lie within them.
        """
        last = self._last(0)
        inside = no_neighbors(self.n_queries, 0)[1]  # of the slice, in the share
        for level, near in enumerate(increments):
            ids, distances = near(np.minimum(last, self._last(level)))
            self._keep(level, ids, distances)
            inside = _least(np.concatenate([inside, distances], axis=1), self.k)
            both = np.concatenate([self.nearest[level], inside], axis=1)
            self.nearest[level] = _least(both, self.k)
            last = self._last(level)

    def found(self) -> Found:
        """Return all that is within the k-th distance of the smallest share that holds it."""
        last = np.stack([self._last(level) for level in range(len(self.ids))], axis=1)
        widths = [found.shape[1] for found in self.ids]
        chunks = []
        for first in range(0, self.n_queries, CHUNK):
            rows = slice(first, first + CHUNK)
            ids = np.concatenate([found[rows] for found in self.ids], axis=1)
            distances = np.concatenate([found[rows] for found in self.distances], axis=1)
            far = distances > np.repeat(last[rows], widths, axis=1)
            ids[far], distances[far] = -1, np.inf
            ids, distances = sort_neighbors(ids, distances, k=ids.shape[1])
            width = int((ids >= 0).sum(axis=1).max(initial=0))
            chunks.append((ids[:, :width], distances[:, :width]))
        return _below_each_other(chunks)

    def _last(self, level: int) -> NDArray[np.float32]:
        """Return the k-th distance in a share; +inf while it has fewer."""
        nearest = self.nearest[level]
        few = nearest.shape[1] < self.k
        return np.full(self.n_queries, np.inf, np.float32) if few else nearest[:, -1]

    def _keep(self, level: int, ids: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Put what a slice has of a level among what those before it had: the k nearest of all."""
        if self.ids[level].shape[1]:
            ids = np.concatenate([self.ids[level], ids], axis=1)
            distances = np.concatenate([self.distances[level], distances], axis=1)
            ids, distances = sort_neighbors(ids, distances, k=self.k)
        self.ids[level], self.distances[level] = ids, distances


def _within(
    queries: NDArray[np.float32],
    ids: NDArray[np.int64],
    scorer: Scorer,
    last: NDArray[np.float32],
    *,
    k: int,
) -> Found:
    """Return the keys within the last distance of each query, or else its k nearest, unsorted."""
    if not len(ids):
        return no_neighbors(len(queries), 0)
    if np.isinf(last).any():
        columns, distances = no_neighbors(len(queries), min(k, len(ids)))
        add_keys(columns, distances, queries, 0, scorer)
    else:
        columns = scorer.within(queries, limit_of(queries, last, scorer))
        distances = scorer.direct(queries, columns)
    return np.where(columns < 0, -1, ids[columns]), distances


def _least(distances: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return the k least of each row, the largest last; all of them if they are fewer."""
    if distances.shape[1] < k:
        return distances
    return np.partition(distances, k - 1, axis=1)[:, :k]


def _below_each_other(chunks: Sequence[Found]) -> Found:
    """Return what was found for all queries, in arrays as wide as the widest."""
    width = max(ids.shape[1] for ids, _ in chunks)
    every = no_neighbors(sum(len(ids) for ids, _ in chunks), width)
    first = 0
    for chunk in chunks:
        for whole, part in zip(every, chunk, strict=True):
            whole[first : first + len(part), : part.shape[1]] = part
        first += len(chunk[0])
    return every
