"""The datastore: one key and one value for each token of a split, in shards.

Entry i is position i of the token stream: its key is the hidden state at i, its value is token
i + 1 (Khandelwal et al. 2020, Eq. 1). Rows stand in the order of the stream, so the document,
the context and the next entry of a neighbor are arithmetic, not data. Shards are plain .npy
files; each is published whole, and a build that was interrupted goes on with the missing ones.
"""

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from knnlm.lm.anatomy import context, require_sites, width
from knnlm.lm.model import load_model
from knnlm.retrieval.encoder import Encoder, available_device
from knnlm.runtime.artifacts import (
    MANIFEST,
    ArtifactError,
    identity,
    load_array,
    partial_folder,
    publish,
    read_manifest,
    rebuild_hint,
    require_origin,
    save_array,
    write_manifest,
)
from knnlm.runtime.logs import Progress
from knnlm.runtime.signals import stop_if_asked
from knnlm.text.tokens import load_tokens

KEYS = "datastore_keys.npy"
VALUES = "datastore_values.npy"
SLICE_BYTES = 512 << 20  # of keys in fp32: those of the scale `cpu` are one slice, converted once
DTYPES = ("float16", "float32")


class Shard(NamedTuple):
    """Consecutive entries: the id of the first, keys (n, dim) and values (n,), memory-mapped."""

    first_id: int
    datastore_keys: NDArray[Any]
    datastore_values: NDArray[Any]


@dataclass(frozen=True)
class Datastore:
    """An open datastore; iterating gives its shards in order."""

    folder: Path
    shards: tuple[Shard, ...]
    n_entries: int
    dim: int
    dtype: np.dtype
    rows_per_shard: int
    settings: dict[str, Any]
    made_from: dict[str, str]
    _widened: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Iterator[Shard]:
        return iter(self.shards)

    @property
    def slice_rows(self) -> int:
        """The rows of a slice: those that take 512 MiB in fp32."""
        return max(1, SLICE_BYTES // (4 * self.dim))

    def slices(self, n_rows: int | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first id, keys in fp32), `n_rows` at a time, across the borders of shards.

        One buffer is kept and reused: what was yielded holds until the next slice is asked for,
        and a datastore of one slice is converted once.
        """
        n_rows = min(n_rows or self.slice_rows, self.n_entries)
        if len(self._widened.get("buffer", ())) != n_rows:
            self._widened.update(buffer=np.empty((n_rows, self.dim), np.float32), start=None)
        buffer = self._widened["buffer"]
        for start in range(0, self.n_entries, n_rows):
            stop = min(start + n_rows, self.n_entries)
            if self._widened["start"] != start:
                self._widened["start"] = None
                self._widen(start, stop, out=buffer)
                self._widened["start"] = start
            yield start, buffer[: stop - start]

    def _widen(self, start: int, stop: int, *, out: NDArray[np.float32]) -> None:
        """Convert entries start..stop-1 to fp32; torch does it 8 times as fast as NumPy."""
        for shard in self.shards[start // self.rows_per_shard :]:
            low = max(start, shard.first_id)
            high = min(stop, shard.first_id + len(shard.datastore_keys))
            if low >= high:
                return
            rows = shard.datastore_keys[low - shard.first_id : high - shard.first_id]
            with warnings.catch_warnings():  # memory-mapped rows are read-only, and only read
                warnings.simplefilter("ignore")
                source = torch.from_numpy(rows)
            torch.from_numpy(out)[low - start : high - start].copy_(source)

    def values(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the values of entries, in the shape of `ids`; -1 where the id is -1."""
        found = np.full(ids.size, -1, dtype=np.int32)
        flat = ids.ravel()
        for number, places in group_by_range(flat, self.rows_per_shard):
            shard = self.shards[number]
            found[places] = shard.datastore_values[flat[places] - shard.first_id]
        return found.reshape(ids.shape)


def group_by_range(ids: NDArray[np.int64], n_rows: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield (number of a range of `n_rows` ids, places of `ids` that lie in it), in order.

    Ids below 0 are left out. With it everything reads a datastore in order, whatever is asked.
    """
    numbers = ids // n_rows
    small = np.int16 if ids.max(initial=0) // n_rows < 1 << 15 else np.int64
    order = np.argsort(numbers.astype(small), kind="stable")  # 16 bits: a radix sort
    borders = np.flatnonzero(np.diff(numbers[order])) + 1
    for places in np.split(order, borders):
        if len(places) and numbers[places[0]] >= 0:
            yield int(numbers[places[0]]), places


def open_datastore(folder: Path) -> Datastore:
    """Open a datastore after checking the size, shape and dtype of every file.

    Raises:
        ArtifactError: naming the file that is missing, truncated or of another shape or dtype.
    """
    manifest = read_manifest(folder, kind="datastore")
    contents = manifest["contents"]
    n_entries, rows_per_shard = contents["n_entries"], contents["rows_per_shard"]
    shards = []
    for first in range(0, n_entries, rows_per_shard):
        part = folder / _shard_name(first // rows_per_shard)
        n_rows = min(rows_per_shard, n_entries - first)
        shard = Shard(
            first,
            load_array(part / KEYS, dtype=contents["dtype"], columns=contents["dim"]),
            load_array(part / VALUES, dtype=contents["values_dtype"]),
        )
        for name, array in zip((KEYS, VALUES), shard[1:], strict=True):
            if len(array) != n_rows:
                raise ArtifactError(
                    f"expected {part / name} to have {n_rows:,} rows, got {len(array):,}; "
                    f"{rebuild_hint(folder)}"
                )
        shards.append(shard)
    return Datastore(
        folder=folder,
        shards=tuple(shards),
        n_entries=n_entries,
        dim=contents["dim"],
        dtype=np.dtype(contents["dtype"]),
        rows_per_shard=rows_per_shard,
        settings=manifest["settings"],
        made_from=manifest["made_from"],
    )


def build_datastore(
    *,
    output: Path,
    fingerprint: str,
    model: Path,
    tokens: Path,
    site: str,
    stride: int,
    dtype: str,
    shard_mib: int,
    split: str = "train",
    device: str | None = None,
) -> None:
    """Encode a split and publish its datastore.

    Bytes depend on the settings alone: windows are read in batches of fixed composition, and a
    window that two shards share is read for both, also when the build was interrupted between.

    Args:
        output: the folder to make; about dim x itemsize + 2 bytes a token.
        fingerprint: names the folder in which finished shards wait.
        model: its folder.
        tokens: folder of the token streams, made with the model's tokenizer.
        site: where in the last block the key is taken, see `knnlm.lm.anatomy.SITES`.
        stride: tokens a window moves on; each key sees at least `context - stride` tokens.
        dtype: of the keys, float16 or float32.
        shard_mib: size of a shard's keys; its rows are rounded down to a power of two.
        split: the split that is stored.
        device: where the model runs; None takes a GPU if there is one.

    Raises:
        ValueError: if a setting is wrong, the split is shorter than a window, or a key does not
            fit the dtype.
        ArtifactError: if the model has another tokenizer.
    """
    require_sites([site])
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    origin = {"model": identity(model, kind="model"), "tokens": identity(tokens, kind="tokens")}
    tokenizer = read_manifest(tokens, kind="tokens")["made_from"]["tokenizer"]
    require_origin(model, kind="model", role="tokenizer", expected=tokenizer)
    stream = load_tokens(tokens, split).tokens
    lm = load_model(model).to(device or available_device())
    if len(stream) < context(lm) + 1:
        raise ValueError(
            f"the {split} split of {tokens} has {len(stream):,} tokens, too few for a window of "
            f"{context(lm):,} and its last target; use more text or lower the model's context"
        )
    encoder = Encoder(lm, stream, site=site, stride=stride, dtype=dtype)
    rows_per_shard = rows_of_shard(shard_mib, dim=width(lm), dtype=dtype)
    partial = partial_folder(output, fingerprint)
    checksums = write_shards(partial, encoder, rows_per_shard)
    settings = {"site": site, "stride": stride, "context": context(lm), "dtype": dtype}
    contents = {
        "n_entries": encoder.n_entries,
        "dim": width(lm),
        "dtype": dtype,
        "values_dtype": str(stream.dtype),
        "rows_per_shard": rows_per_shard,
    }
    write_manifest(
        partial,
        kind="datastore",
        settings={**settings, "shard_mib": shard_mib, "split": split},
        made_from=origin,
        contents=contents,
        checksums=checksums,
    )
    publish(partial, output)


def rows_of_shard(shard_mib: int, *, dim: int, dtype: str) -> int:
    """Return the rows of a shard: the largest power of two whose keys fit `shard_mib` MiB."""
    fitting = (shard_mib << 20) // (dim * np.dtype(dtype).itemsize)
    if fitting < 1:
        raise ValueError(f"shard_mib must hold at least one key of {dim} {dtype}, got {shard_mib}")
    return 1 << (fitting.bit_length() - 1)


def write_shards(partial: Path, encoder: Encoder, rows_per_shard: int) -> dict[str, str]:
    """Write the missing shards into a folder; return the checksum of each file by its path."""
    firsts = range(0, encoder.n_entries, rows_per_shard)
    names = [_shard_name(number) for number in range(len(firsts))]
    whole = [(partial / name / MANIFEST).is_file() for name in names]
    done = min(sum(whole) * rows_per_shard, encoder.n_entries)
    progress = Progress("datastore", total=encoder.n_entries, unit="tokens", done=done)
    checksums = {}
    for first, name, is_whole in zip(firsts, names, whole, strict=True):
        if not is_whole:
            stop = min(first + rows_per_shard, encoder.n_entries)
            _write_shard(partial / name, encoder, first, stop)
            progress.update(min(progress.done + rows_per_shard, encoder.n_entries))
            stop_if_asked()
        manifest = read_manifest(partial / name, kind="datastore_shard")
        checksums |= {f"{name}/{file}": r["sha256"] for file, r in manifest["files"].items()}
    return checksums


def _write_shard(folder: Path, encoder: Encoder, first: int, stop: int) -> None:
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_array(unfinished / KEYS, encoder.keys(first, stop))
    save_array(unfinished / VALUES, np.array(encoder.stream[first + 1 : stop + 1]))
    write_manifest(
        unfinished,
        kind="datastore_shard",
        settings={},
        made_from={},
        contents={"first_id": first, "n_entries": stop - first},
    )
    unfinished.replace(folder)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}"
