"""Parts: big artifacts are made by several jobs, each of which owns a range of whole shards.

Which rows a part owns is arithmetic on the number of rows, so no job waits for another to be
planned, and the number of parts changes no byte of the joined artifact. Neither torch nor faiss:
the jobs that join parts start in a moment. Joining links files: each byte is written once.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from knnlm.runtime.artifacts import (
    ArtifactError,
    copy_file,
    identity,
    identity_of,
    read_manifest,
    rebuild_hint,
    require_origin,
)
from knnlm.runtime.making import Target, making


class Part(NamedTuple):
    """One of several jobs: its number, from 0, and how many there are."""

    number: int
    count: int

    def rows(self, n_rows: int, *, unit: int) -> range:
        """Return the rows that this part owns: whole units, as even as units allow.

        The parts tile range(n_rows) in order; with fewer units than parts some are empty. The
        last unit may be short. Python integers: no number of rows is too large.
        """
        if not 0 <= self.number < self.count:
            raise ValueError(f"expected a part from 0 to {self.count - 1}, got {self.number}")
        n_units = -(-n_rows // unit)
        first, stop = (n_units * i // self.count * unit for i in (self.number, self.number + 1))
        return range(min(first, n_rows), min(stop, n_rows))


def read_parts(folders: Sequence[Path], *, kind: str) -> list[dict[str, Any]]:
    """Return the manifests of parts after checking that they belong together.

    Args:
        folders: of the parts, in order; contents["rows"] of each is [first, stop].
        kind: of the parts.

    Raises:
        ArtifactError: if anything but their rows differs, or rows are missing or doubled.
    """
    manifests = [read_manifest(folder, kind=kind) for folder in folders]
    stop = 0
    for folder, manifest in zip(folders, manifests, strict=True):
        for name in ("settings", "made_from", "contents"):
            if differing := _differences(manifest[name], manifests[0][name]):
                raise ArtifactError(
                    f"expected the {name} of {folder} to be those of {folders[0]}, got "
                    f"{differing}; {rebuild_hint(folder)}"
                )
        first, last = manifest["contents"]["rows"]
        if first != stop:
            raise ArtifactError(
                f"expected {folder} to go on at row {stop:,}, got rows from {first:,}; give every "
                "part once, in order"
            )
        stop = last
    expected = manifests[0]["contents"]["n_entries"]
    if stop != expected:
        raise ArtifactError(
            f"expected {folders[-1]} to end at row {expected:,}, got {stop:,}; give every part "
            "once, in order"
        )
    return manifests


def identities_of(manifests: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the identity of each part, by its number, from what `read_parts` returns."""
    return {str(number): identity_of(manifest) for number, manifest in enumerate(manifests)}


def _differences(block: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return the names whose values differ, and both values; rows may differ."""
    names = [n for n in {**expected, **block} if n != "rows" and block.get(n) != expected.get(n)]
    return ", ".join(f"{name} {block.get(name)} for {expected.get(name)}" for name in names)


def join_parts(
    target: Target, *, kind: str, parts: Sequence[Path], heads: Sequence[Path] = ()
) -> None:
    """Publish the artifact of some parts: their files, settings and origin.

    Args:
        target: what is made.
        kind: of the artifact; its parts are of the kind {kind}_part.
        parts: their folders, in order.
        heads: the artifact of the kind {kind}_head that the parts were made from, if there is
            one; its files belong to the artifact too.

    Raises:
        ArtifactError: see `read_parts`; or if the parts were made from another head.
    """
    manifests = read_parts(parts, kind=f"{kind}_part")
    sources = [*zip(parts, manifests, strict=True)]
    for head in heads:
        expected = identity(head, kind=f"{kind}_head")
        require_origin(parts[0], kind=f"{kind}_part", role="head", expected=expected)
        sources.append((head, read_manifest(head, kind=f"{kind}_head")))
    first = manifests[0]
    made_from = {role: made for role, made in first["made_from"].items() if role != "head"}
    with making(
        target,
        kind=kind,
        made_from=made_from,
        settings=first["settings"],
        apart=identities_of(manifests),
    ) as made:
        for folder, manifest in sources:
            made.checksums |= link_files(folder, manifest, made.folder)
        made.contents |= {name: v for name, v in first["contents"].items() if name != "rows"}


def link_files(source: Path, manifest: Mapping[str, Any], target: Path) -> dict[str, str]:
    """Give the files of an artifact a second name in `target`; return their checksums.

    No byte is written again: both names are of one file. Where the file system has no such
    links, and between two file systems, files are copied.
    """
    for name in manifest["files"]:
        file = (source / name).resolve()  # in a shared cache the name is a symbolic link
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).unlink(missing_ok=True)
        try:
            os.link(file, target / name)
        except OSError:
            copy_file(file, target / name)
    return {name: recorded["sha256"] for name, recorded in manifest["files"].items()}
