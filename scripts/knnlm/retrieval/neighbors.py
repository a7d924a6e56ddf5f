"""Stored neighbors: found once, so that k, temperature and lmbda are scored without a search.

Queries are stored in blocks. Each part of a datastore is searched by a job of its own, and the
lists of the parts are merged here, block by block. A missing neighbor has id -1, distance +inf
and value -1. An engine that finds neighbors by codes and computes their distances again keeps
both, so that which neighbors count and how much each counts can be combined without a second
search. NumPy alone, so that readers and the job that merges start in a moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.engines.nearest import below_largest, sort_neighbors
from knnlm.retrieval.parts import identities_of, link_files, read_parts
from knnlm.retrieval.sampling import Entries, entries_of, evenly_spaced
from knnlm.runtime.artifacts import (
    ArtifactError,
    atomic_path,
    read_manifest,
    rebuild_hint,
)
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import Target, making
from knnlm.runtime.signals import stop_if_asked

ARRAYS = {"ids": np.int64, "distances": np.float32, "values": np.int32}  # of a block
SHAPE = ("n_queries", "block_queries", "k")
ROUGH = "rough"  # the distances by which an engine found what it computes distances of again
RECALL = "recall.npz"  # what exact search finds for some queries, in the rows of a part


@dataclass(frozen=True)
class Neighbors:
    """Neighbors of every query that was searched, nearest first.

    Attributes:
        ids: (n, k) int64, entries of the datastore; -1 where missing.
        distances: (n, k) float32, ascending, at least 0; +inf where missing. Squared L2; of inner
            products how far each lies below the largest of its query, see `below_largest`.
        values: (n, k) int32, the token that followed each neighbor; -1 where missing.
        places: (n,) int64, which of the queries were searched, ascending; mostly all.
        entries: `entries.positions(ids)` are the positions in the train stream of the datastore.
        rough: (n, k) float32, the distances by codes that chose these neighbors, in the order of
            `distances`; None unless they were asked for.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    values: NDArray[np.int32]
    places: NDArray[np.int64]
    entries: Entries
    rough: NDArray[np.float32] | None = None


def merge_neighbors(target: Target, *, parts: Sequence[Path]) -> None:
    """Merge the neighbors that were found in each part of a datastore, and publish them.

    The k nearest of all are among the k nearest of each part. Blocks are merged one at a time,
    part after part; a merge that was interrupted goes on with the missing ones. One part alone is
    linked. Memory: 160 x block_queries x k bytes, however many parts there are; and the neighbors
    of all queries, 16 x n_queries x k bytes, where recall is measured.

    Args:
        target: what is made.
        parts: what each part found, in order.

    Raises:
        ArtifactError: if the parts do not belong together.
    """
    manifests = read_parts(parts, kind="neighbors_part")
    settings, made_from, contents = (
        manifests[0][name] for name in ("settings", "made_from", "contents")
    )
    shape = {name: contents[name] for name in SHAPE}
    apart = identities_of(manifests)
    with making(
        target, kind="neighbors", made_from=made_from, settings=settings, apart=apart
    ) as made:
        if len(parts) == 1:
            made.checksums |= link_files(parts[0], manifests[0], made.folder)
            (made.folder / RECALL).unlink(missing_ok=True)
        else:
            _merge_blocks(made.folder, parts, **shape)
        kept = {name: v for name, v in contents.items() if name not in ("rows", "n_entries")}
        made.contents |= {**kept, "recall": _recall(made.folder, parts, **shape)}


def _merge_blocks(
    partial: Path, parts: Sequence[Path], *, n_queries: int, block_queries: int, k: int
) -> None:
    """Merge the blocks that are not merged yet, and publish each."""
    blocks = blocks_of(partial, n_queries, block_queries)
    missing = [(path, rows) for path, rows in blocks if not path.is_file()]
    done = n_queries - sum(rows.stop - rows.start for _, rows in missing)
    progress = Progress("merge", total=n_queries, unit="queries", done=done)
    for path, rows in missing:
        nearest = _read_arrays(parts[0] / path.name)
        for part in parts[1:]:
            found = _read_arrays(part / path.name)
            both = {name: np.concatenate([nearest[name], found[name]], axis=1) for name in found}
            nearest = merge_lists(both, k=k)
        write_block(path, by_distance(nearest))
        done += rows.stop - rows.start
        progress.update(done)
        stop_if_asked()


def merge_lists(
    lists: Mapping[str, NDArray[Any]], *, k: int, by: str | None = None
) -> dict[str, NDArray[Any]]:
    """Return the k nearest of each row, ascending, with all that the lists have of them.

    Args:
        lists: (n_queries, n) each, in any order: distinct `ids`, -1 where missing; `distances`,
            +inf where missing; `values`, -1 where missing; and perhaps `rough` distances.
        k: columns of the result.
        by: the distances that count; the rough ones, if there are any, unless it is named.
    """
    counts = by or (ROUGH if ROUGH in lists else "distances")
    ids, nearest = sort_neighbors(lists["ids"], lists[counts], k=k)
    order = np.argsort(lists["ids"], axis=1)
    known = np.take_along_axis(lists["ids"], order, axis=1)
    places = [np.searchsorted(row, some) for row, some in zip(known, ids, strict=True)]
    chosen = np.take_along_axis(order, np.array(places), axis=1)
    found = {name: np.take_along_axis(array, chosen, axis=1) for name, array in lists.items()}
    return found | {"ids": ids, counts: nearest}


def by_distance(lists: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the same neighbors in the order of their distances, whatever chose them."""
    if ROUGH not in lists:
        return dict(lists)
    return merge_lists(lists, k=lists["ids"].shape[1], by="distances")


def write_block(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Publish a block of queries."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def write_recall(
    path: Path,
    queries: NDArray[np.int64],
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
) -> None:
    """Publish what exact search finds for some queries in a part; nothing if recall is 1."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, queries=queries, ids=ids, distances=distances)


def _recall(folder: Path, parts: Sequence[Path], **shape: int) -> float:
    """Return the share of the true neighbors of the sampled queries that were found."""
    samples = [_read_arrays(part / RECALL) for part in parts]
    ids, distances = (
        np.concatenate([sample[name] for sample in samples], axis=1)
        for name in ("ids", "distances")
    )
    if not ids.size:  # an exact engine has nothing to compare
        return 1.0
    expected, _ = sort_neighbors(ids, distances, k=shape["k"])
    return recall(read_blocks(folder, **shape)["ids"][samples[0]["queries"]], expected)


def load_neighbors(folder: Path, *, rough: bool = False) -> Neighbors:
    """Read stored neighbors.

    Args:
        folder: of the neighbors.
        rough: whether the distances by codes are read too.

    Raises:
        ArtifactError: naming the file that is missing, truncated or of another shape; or if
            distances by codes are asked for that were not kept.
    """
    contents = read_manifest(folder, kind="neighbors")["contents"]
    if rough and not contents["search"].get("rescore"):
        raise ArtifactError(
            f"expected {folder} to have distances by codes beside the full ones, got those of the "
            f"engine {contents['search']['engine']} alone; search by an index with rescore: true"
        )
    arrays = read_blocks(folder, rough=rough, **{name: contents[name] for name in SHAPE})
    if contents["search"].get("metric") == "ip":
        compared = {"distances", ROUGH} & arrays.keys()
        arrays |= {name: below_largest(arrays[name]) for name in compared}
    return Neighbors(
        **arrays,
        places=evenly_spaced(contents["of_queries"], contents["n_queries"]),
        entries=entries_of(contents),
    )


def recall(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Return the mean share of the expected ids that were found, (n_queries, k) both."""
    hits = [np.isin(row, other).mean() for row, other in zip(expected, found, strict=True)]
    return float(np.mean(hits))


def blocks_of(folder: Path, n_queries: int, block_queries: int) -> list[tuple[Path, slice]]:
    """Return the file of each block of queries, and the queries that it holds."""
    starts = range(0, n_queries, block_queries)
    return [
        (folder / f"block-{number:05d}.npz", slice(start, min(start + block_queries, n_queries)))
        for number, start in enumerate(starts)
    ]


def read_blocks(
    folder: Path, *, n_queries: int, block_queries: int, k: int, rough: bool = False
) -> dict[str, NDArray[Any]]:
    """Return ids, distances and values (n_queries, k), and rough distances, from a folder's blocks.

    Raises:
        ArtifactError: naming the block that is missing or cannot be read.
    """
    types = ARRAYS | ({ROUGH: np.float32} if rough else {})
    arrays = {name: np.empty((n_queries, k), dtype) for name, dtype in types.items()}
    for path, rows in blocks_of(folder, n_queries, block_queries):
        found = _read_arrays(path, arrays)
        for name, array in arrays.items():
            array[rows] = found[name]
    return arrays


def _read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, or those of some names."""
    try:
        with np.load(path, allow_pickle=False) as block:
            return {name: block[name] for name in names or block.files}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise ArtifactError(
            f"{path} cannot be read as neighbors ({error}); {rebuild_hint(path.parent)}"
        ) from error
