"""Artifacts: folders that are whole or absent, with a manifest that says what is in them.

An artifact is written into a partial folder, unit by unit, each file atomically. Its manifest
comes last, with the size and checksum of every file and the identities of what it was made
from; then the folder moves to its final name by one rename. Readers check before they read.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.full_disk import named_if_full

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
RECORDED_LIBRARIES = ("numpy", "torch", "transformers", "faiss-cpu", "tokenizers")


class ArtifactError(ValueError):
    """A file or folder that is truncated, altered, foreign or half-written."""


def rebuild_hint(path: Path) -> str:
    """Return the remedy for a bad artifact: remove it, then run the same command again."""
    return f"remove {path} and run the same snakemake command again to rebuild it"


def canonical_json(value: Any) -> str:
    """Return one text for equal values: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces of 4 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(4 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path`, on failure it is gone.

    Raises:
        DiskFullError: if the disk is full, naming the file and what to do.
    """
    temporary = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with named_if_full(path):  # asks while the half-written file is still there
            yield temporary
            flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n", encoding="ascii")


def load_array(path: Path, *, dtype: Any = None, columns: int | None = None) -> NDArray[Any]:
    """Open a .npy file read-only and memory-mapped, after checking it against what is expected.

    Args:
        path: the file.
        dtype: the expected dtype; None accepts any.
        columns: the expected length of the second axis; None accepts any shape.

    Raises:
        ArtifactError: if the file is missing, truncated or of another shape or dtype.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(
            f"{path} cannot be read as a .npy array ({error}); {rebuild_hint(path.parent)}"
        ) from error
    if dtype is not None and array.dtype != np.dtype(dtype):
        raise ArtifactError(
            f"expected {path} to hold {np.dtype(dtype)}, got {array.dtype}; "
            f"{rebuild_hint(path.parent)}"
        )
    if columns is not None and (array.ndim != 2 or array.shape[1] != columns):
        raise ArtifactError(
            f"expected {path} to have {columns} columns, got shape {array.shape}; "
            f"{rebuild_hint(path.parent)}"
        )
    return array


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that shape the numbers."""
    return {name: version(name) for name in RECORDED_LIBRARIES}


def write_manifest(
    folder: Path,
    *,
    kind: str,
    settings: Mapping[str, Any],
    made_from: Mapping[str, str],
    contents: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | None = None,
) -> None:
    """Write the manifest of a finished folder, listing every file in it.

    Files whose names begin with a dot are removed: writers that were killed left them.

    Args:
        folder: the artifact; all its files are final.
        kind: what it is, such as "datastore".
        settings: the settings that shaped it.
        made_from: the identity of each artifact it was made from, by role.
        contents: counts, shapes, dtypes: whatever a reader needs before opening a file.
        names: of its place, such as {"model": "base", "seed": "0"}; no part of its identity.
        checksums: known SHA-256 by relative path, so that big files are not read again.
    """
    known = checksums or {}
    for leftover in [path for path in folder.rglob(".*") if path.is_file()]:
        leftover.unlink()  # of a writer that was killed: safetensors' is .tmp and some letters
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            files[name] = {
                "bytes": path.stat().st_size,
                "sha256": known.get(name) or sha256_file(path),
            }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "names": dict(names or {}),
        "settings": dict(settings),
        "made_from": dict(made_from),
        "contents": dict(contents),
        "libraries": library_versions(),
        "files": files,
    }
    save_json(folder / MANIFEST, manifest | {"checksum": manifest_checksum(manifest)})


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its checksum."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def read_manifest(folder: Path, *, kind: str) -> dict[str, Any]:
    """Return the manifest of an artifact after checking its kind, version and file sizes.

    Raises:
        ArtifactError: if there is none, or it is of another kind or version, or a file that it
            lists is missing or has another size.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{folder} has no readable {MANIFEST} ({error}), so it is not a whole {kind}; "
            f"{rebuild_hint(folder)}"
        ) from error
    found = (manifest.get("kind"), manifest.get("schema_version"))
    if found != (kind, SCHEMA_VERSION):
        raise ArtifactError(
            f"expected {folder} to be a {kind} of schema version {SCHEMA_VERSION}, got "
            f"{found[0]} of version {found[1]}; {rebuild_hint(folder)}"
        )
    for name, recorded in manifest["files"].items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != recorded["bytes"]:
            found_size = "it is missing" if size is None else f"it has {size:,}"
            raise ArtifactError(
                f"expected {file} to have {recorded['bytes']:,} bytes, {found_size}; "
                f"{rebuild_hint(folder)}"
            )
    return manifest


def verify_checksums(folder: Path, *, kind: str, names: Collection[str] | None = None) -> None:
    """Read every file of an artifact and compare its SHA-256 with the manifest.

    Args:
        folder: the artifact.
        kind: its kind.
        names: the files that the caller will read; None takes all.

    Raises:
        ArtifactError: naming the first file whose content was altered.
    """
    for name, recorded in read_manifest(folder, kind=kind)["files"].items():
        if names is not None and name not in names:
            continue
        if sha256_file(folder / name) != recorded["sha256"]:
            raise ArtifactError(
                f"the content of {folder / name} is not what was written (checksum differs); "
                f"{rebuild_hint(folder)}"
            )


def identity(folder: Path, *, kind: str) -> str:
    """Return the SHA-256 of what an artifact is: its settings, its origin and its files."""
    return identity_of(read_manifest(folder, kind=kind))


def identity_of(manifest: Mapping[str, Any]) -> str:
    """Return the identity that a manifest gives its artifact."""
    parts = {key: manifest[key] for key in ("kind", "settings", "made_from", "files")}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def require_origin(folder: Path, *, kind: str, role: str, expected: str) -> None:
    """Check that an artifact was made from what the caller holds.

    Args:
        folder: the artifact.
        kind: its kind.
        role: the entry of its `made_from`, such as "model".
        expected: the identity that the entry must have.

    Raises:
        ArtifactError: if it was made from another model, tokenizer or corpus.
    """
    recorded = read_manifest(folder, kind=kind)["made_from"].get(role)
    if recorded != expected:
        raise ArtifactError(
            f"{folder} was made from another {role} (expected {expected[:12]}, got "
            f"{str(recorded)[:12]}); {rebuild_hint(folder)}"
        )
