"""The datastore: one key and one value for each token of the train split, in shards.

The key of a position i of the token stream is the hidden state at i, its value is token i + 1
(Khandelwal et al. 2020, Eq. 1). Entries stand in the order of the stream, all positions or a
share of them (`Entries`), so the document, the context and the next entry of a neighbor are
arithmetic, not data. Shards are plain .npy files, memory-mapped: a reader holds one slice of keys
and no more, SLICE_BYTES in fp32 unless it asks for another size.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from knnlm.retrieval.parts import Part
from knnlm.retrieval.sampling import Entries, entries_of, group_by_range
from knnlm.runtime.artifacts import (
    ArtifactError,
    load_array,
    read_manifest,
    rebuild_hint,
    verify_checksums,
)
from knnlm.runtime.seeds import numpy_generator

KEYS = "datastore_keys.npy"
VALUES = "datastore_values.npy"
SLICE_BYTES = 512 << 20  # of keys in fp32: those of the scale `cpu` are one slice, converted once
OPEN_SHARDS = 128  # two files each; a process may have 1,024 open on many systems


class Shard(NamedTuple):
    """Consecutive entries: the id of the first, keys (n, dim) and values (n,), memory-mapped."""

    first_id: int
    datastore_keys: NDArray[Any]
    datastore_values: NDArray[Any]


class StoredShards(Sequence[Shard]):
    """The shards of a folder, memory-mapped when they are read; OPEN_SHARDS of them stay open."""

    def __init__(self, folder: Path, contents: Mapping[str, Any]) -> None:
        self.folder, self.contents = folder, contents
        self.firsts = range(0, contents["n_entries"], contents["rows_per_shard"])
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._map)

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, number: int) -> Shard:
        return self._open(self.firsts[number])

    def _map(self, first: int) -> Shard:
        dim, dtype, values_dtype = (self.contents[n] for n in ("dim", "dtype", "values_dtype"))
        folder = self.folder / shard_name(first // self.firsts.step)
        keys = load_array(folder / KEYS, dtype=dtype, columns=dim)
        values = load_array(folder / VALUES, dtype=values_dtype)
        n_rows = min(self.firsts.step, self.contents["n_entries"] - first)
        for name, array in ((KEYS, keys), (VALUES, values)):
            if len(array) != n_rows:
                raise ArtifactError(
                    f"expected {folder / name} to have {n_rows:,} rows, got {len(array):,}; "
                    f"{rebuild_hint(self.folder)}"
                )
        return Shard(first, keys, values)


@dataclass(frozen=True)
class Datastore:
    """An open datastore; iterating gives its shards in order.

    `rows` are the entries that a search compares with its queries: all, or those of a part. Ids
    and values are those of the whole datastore in either case. `entries` tells which positions of
    the token stream they are.
    """

    folder: Path
    shards: Sequence[Shard]
    n_entries: int
    dim: int
    dtype: np.dtype
    rows_per_shard: int
    settings: dict[str, Any]
    made_from: dict[str, str]
    entries: Entries
    rows: range
    _widened: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Iterator[Shard]:
        return iter(self.shards)

    @property
    def slice_rows(self) -> int:
        """The rows of a slice: those that take 512 MiB in fp32."""
        return max(1, SLICE_BYTES // (4 * self.dim))

    def part(self, part: Part) -> "Datastore":
        """Return the same datastore with the rows that a part owns."""
        return self.between(part.rows(self.n_entries, unit=self.rows_per_shard))

    def between(self, rows: range) -> "Datastore":
        """Return the same datastore with some of its rows."""
        return replace(self, rows=rows, _widened={})

    def slices(self, n_rows: int | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first id, keys in fp32), `n_rows` at a time, across the borders of shards.

        One buffer is kept and reused: what was yielded holds until the next slice is asked for,
        and rows that are one slice are converted once.
        """
        n_rows = max(1, min(n_rows or self.slice_rows, len(self.rows)))
        if len(self._widened.get("buffer", ())) != n_rows:
            self._widened.update(buffer=np.empty((n_rows, self.dim), np.float32), start=None)
        buffer = self._widened["buffer"]
        for start in self.rows[::n_rows]:
            stop = min(start + n_rows, self.rows.stop)
            if self._widened["start"] != start:
                self._widened["start"] = None
                self._widen(start, stop, out=buffer)
                self._widened["start"] = start
            yield start, buffer[: stop - start]

    def stored_slices(self, n_rows: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first id, keys as they are stored), at most `n_rows` of a shard, not copied."""
        n_rows = n_rows or self.slice_rows
        for first, keys in self._stored(self.rows):
            for start in range(0, len(keys), n_rows):
                yield first + start, keys[start : start + n_rows]

    def _stored(self, rows: range) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first id, keys) of each shard that has some of the rows, cut to them."""
        size = self.rows_per_shard
        for number in range(rows.start // size, -(-rows.stop // size)):
            shard = self.shards[number]
            low = max(rows.start, shard.first_id)
            yield low, shard.datastore_keys[low - shard.first_id : rows.stop - shard.first_id]

    def _widen(self, start: int, stop: int, *, out: NDArray[np.float32]) -> None:
        """Convert entries start..stop-1 to fp32; torch does it 8 times as fast as NumPy."""
        for first, keys in self._stored(range(start, stop)):
            with warnings.catch_warnings():  # memory-mapped rows are read-only, and only read
                warnings.simplefilter("ignore")
                source = torch.from_numpy(keys)
            torch.from_numpy(out)[first - start :][: len(keys)].copy_(source)

    def keys(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the keys (n, dim) of entries (n,), in fp32."""
        found = np.empty((len(ids), self.dim), dtype=np.float32)
        for number, places in group_by_range(ids, self.rows_per_shard):
            shard = self.shards[number]
            found[places] = shard.datastore_keys[ids[places] - shard.first_id]
        return found

    def values(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the values of entries, in the shape of `ids`; -1 where the id is -1."""
        found = np.full(ids.size, -1, dtype=np.int32)
        flat = ids.ravel()
        for number, places in group_by_range(flat, self.rows_per_shard):
            shard = self.shards[number]
            found[places] = shard.datastore_values[flat[places] - shard.first_id]
        return found.reshape(ids.shape)


def open_datastore(folder: Path) -> Datastore:
    """Open a datastore after checking the size, shape and dtype of every file.

    Raises:
        ArtifactError: naming the file that is missing, truncated or of another shape or dtype.
    """
    manifest = read_manifest(folder, kind="datastore")
    contents = manifest["contents"]
    shards = StoredShards(folder, contents)
    for _ in shards:  # opens and checks each
        pass
    return Datastore(
        folder=folder,
        shards=shards,
        n_entries=contents["n_entries"],
        dim=contents["dim"],
        dtype=np.dtype(contents["dtype"]),
        rows_per_shard=contents["rows_per_shard"],
        settings=manifest["settings"],
        made_from=manifest["made_from"],
        entries=entries_of(contents),
        rows=range(contents["n_entries"]),
    )


def in_memory(
    datastore_keys: NDArray[np.floating],
    datastore_values: NDArray[np.integer],
    *,
    rows_per_shard: int | None = None,
    name: str = "memory",
) -> Datastore:
    """Return keys and values as a datastore that was never written.

    Args:
        datastore_keys: (n_entries, dim).
        datastore_values: (n_entries,).
        rows_per_shard: how they are cut; one shard if None.
        name: what errors call it.
    """
    n_entries, size = len(datastore_keys), rows_per_shard or len(datastore_keys)
    rows = [slice(first, first + size) for first in range(0, n_entries, size)]
    return Datastore(
        folder=Path(name),
        shards=tuple(Shard(r.start, datastore_keys[r], datastore_values[r]) for r in rows),
        n_entries=n_entries,
        dim=datastore_keys.shape[1],
        dtype=datastore_keys.dtype,
        rows_per_shard=size,
        settings={},
        made_from={},
        entries=Entries(n_entries),
        rows=range(n_entries),
    )


def sample_keys(
    datastore: Datastore, n_keys: int, *, seed: int, among: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return some keys in fp32, drawn without replacement, in the order of the datastore.

    Args:
        datastore: whose keys they are.
        n_keys: how many; all if there are fewer.
        seed: of the sample.
        among: ids of the entries that may be drawn, ascending; None is all.
    """
    generator = numpy_generator(seed, "index", "train_keys")
    n_entries = datastore.n_entries if among is None else len(among)
    n_keys = min(n_keys, n_entries)
    ids = np.sort(generator.choice(n_entries, n_keys, replace=False))
    ids = ids if among is None else among[ids]
    keys = np.empty((n_keys, datastore.dim), dtype=np.float32)
    for number, places in group_by_range(ids, datastore.rows_per_shard):
        shard = datastore.shards[number]
        keys[places] = shard.datastore_keys[ids[places] - shard.first_id]
    return keys


def verify_rows(datastore: Datastore) -> None:
    """Compare the checksums of the shards that hold the rows of a datastore.

    Raises:
        ArtifactError: naming the first file whose content was altered.
    """
    firsts = datastore.rows[:: datastore.rows_per_shard]
    shards = [shard_name(first // datastore.rows_per_shard) for first in firsts]
    names = {f"{shard}/{name}" for shard in shards for name in (KEYS, VALUES)}
    verify_checksums(datastore.folder, kind="datastore", names=names)


def shard_name(number: int) -> str:
    """Return the folder of a shard, also within the parts that are not joined yet."""
    return f"shard-{number:05d}"
