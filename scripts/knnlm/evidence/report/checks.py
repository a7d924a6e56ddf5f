"""Whether the artifacts behind the tables are what was written.

Sizes are compared always, checksums within a budget of bytes.
"""

import json
from pathlib import Path
from typing import NamedTuple

from knnlm.runtime.artifacts import MANIFEST, ArtifactError, read_manifest, verify_checksums


class Checked(NamedTuple):
    """How many artifacts were checked, and what was wrong with them."""

    artifacts: int
    by_checksum: int
    files: int
    bytes: int
    problems: list[str]


def check_artifacts(folders: list[Path], *, budget: int) -> Checked:
    """Check every artifact: kind, version and sizes, and checksums while the budget lasts.

    Args:
        folders: of the artifacts, each with its manifest.
        budget: bytes that are read at most; small artifacts are read first.
    """
    sized = []
    for folder in folders:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
        sized.append((sum(f["bytes"] for f in manifest["files"].values()), folder, manifest))
    left, by_checksum, problems = budget, 0, []
    for size, folder, manifest in sorted(sized, key=lambda entry: (entry[0], entry[1])):
        readable = size <= left
        check = verify_checksums if readable else read_manifest
        try:
            check(folder, kind=manifest["kind"])
        except ArtifactError as error:
            problems.append(str(error))
        left -= size if readable else 0
        by_checksum += readable
    return Checked(
        artifacts=len(sized),
        by_checksum=by_checksum,
        files=sum(len(manifest["files"]) for _, _, manifest in sized),
        bytes=sum(size for size, _, _ in sized),
        problems=problems,
    )
