"""Building a datastore: each part encodes its own shards; a cheap job links the parts.

Each shard is published whole, and a build that was interrupted goes on with the missing ones.
Memory of a job: the model, one batch of its hidden states, and the keys of one shard (shard_mib).
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from knnlm.retrieval.datastore import KEYS, VALUES, shard_name
from knnlm.retrieval.encoder import SPLIT, Encoder, key_settings, open_encoder
from knnlm.retrieval.parts import Part
from knnlm.runtime.artifacts import MANIFEST, read_manifest, save_array, write_manifest
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import Target, making
from knnlm.runtime.signals import stop_if_asked


def build_datastore_part(
    target: Target, *, model: Path, tokens: Path, datastore: Mapping[str, Any], part: Part
) -> None:
    """Encode the rows of a part and publish their shards.

    Bytes depend on the settings alone: windows are read in batches of fixed composition, and a
    window that two shards share is read for both, also when the build was interrupted between.

    Args:
        target: what is made; about dim x itemsize + 2 bytes an entry. Its seed is that of the
            share.
        model: its folder.
        tokens: folder of the token streams, made with the model's tokenizer; train is stored.
        datastore: the entry of the config, see `open_encoder`; and shard_mib, the size of a
            shard's keys, whose rows are rounded down to a power of two.
        part: which shards; their number and content do not depend on the number of parts.

    Raises:
        ValueError: if a setting is wrong, the split is shorter than a window, or a key does not
            fit the dtype.
        ArtifactError: if the model has another tokenizer.
    """
    encoder, origin = open_encoder(model, tokens, datastore=datastore, seed=target.seed)
    settings, shard_mib = key_settings(datastore), datastore["shard_mib"]
    rows_per_shard = rows_of_shard(shard_mib, dim=encoder.dim, dtype=settings["dtype"])
    rows = part.rows(encoder.n_entries, unit=rows_per_shard)
    with making(
        target,
        kind="datastore_part",
        made_from=origin,
        settings={**settings, "split": SPLIT, "context": encoder.context, "shard_mib": shard_mib},
    ) as made:
        made.checksums |= write_shards(made.folder, encoder, rows, rows_per_shard)
        made.contents |= {
            "n_entries": encoder.n_entries,
            "entries": encoder.entries.described(),
            "dim": encoder.dim,
            "dtype": settings["dtype"],
            "values_dtype": str(encoder.stream.dtype),
            "rows_per_shard": rows_per_shard,
            "rows": [rows.start, rows.stop],
        }


def rows_of_shard(shard_mib: int, *, dim: int, dtype: str) -> int:
    """Return the rows of a shard: the largest power of two whose keys fit `shard_mib` MiB."""
    fitting = (shard_mib << 20) // (dim * np.dtype(dtype).itemsize)
    if fitting < 1:
        raise ValueError(f"shard_mib must hold at least one key of {dim} {dtype}, got {shard_mib}")
    return 1 << (fitting.bit_length() - 1)


def write_shards(
    partial: Path, encoder: Encoder, rows: range, rows_per_shard: int
) -> dict[str, str]:
    """Write the missing shards of some rows; return the checksum of each file by its path.

    Args:
        partial: the folder of the shards.
        encoder: of the keys.
        rows: what to write; they begin at the border of a shard.
        rows_per_shard: entries of a shard.
    """
    names = {first: shard_name(first // rows_per_shard) for first in rows[::rows_per_shard]}
    whole = {first for first, name in names.items() if (partial / name / MANIFEST).is_file()}
    done = sum(min(rows_per_shard, rows.stop - first) for first in whole)
    progress = Progress("datastore", total=len(rows), unit="tokens", done=done)
    checksums = {}
    for first, name in names.items():
        if first not in whole:
            stop = min(first + rows_per_shard, rows.stop)
            _write_shard(partial / name, encoder, first, stop)
            progress.update(progress.done + stop - first)
            stop_if_asked()
        manifest = read_manifest(partial / name, kind="datastore_shard")
        checksums |= {f"{name}/{file}": r["sha256"] for file, r in manifest["files"].items()}
    return checksums


def _write_shard(folder: Path, encoder: Encoder, first: int, stop: int) -> None:
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_array(unfinished / KEYS, encoder.keys(first, stop))
    save_array(unfinished / VALUES, encoder.values(np.arange(first, stop)))
    write_manifest(
        unfinished,
        kind="datastore_shard",
        settings={},
        made_from={},
        contents={"first_id": first, "n_entries": stop - first},
    )
    unfinished.replace(folder)
