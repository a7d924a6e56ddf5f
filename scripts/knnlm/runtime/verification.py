"""Is a run what was written? A file of checksums as `sha256sum` writes it, and a check of origins.

    cd results/{run} && sha256sum -c checksums.sha256

reads every byte of a finished run: the files of each artifact, whose checksums stand in its
manifest, the manifests, and what has none, such as tables, figures, tuned points and the report.
`snakemake verify` reads an unfinished run too, and says besides which artifact was made from
another than the one that is here, and what to rebuild.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from knnlm.runtime.artifacts import (
    MANIFEST,
    ArtifactError,
    atomic_path,
    identity_of,
    manifest_checksum,
    sha256_file,
)

RECORD = "checksums.sha256"
# what changes beside the results: units in progress, and what Snakemake and `plan` write
LEFT_OUT = ("logs", "benchmarks", "partial", "parts", "tables/plan.csv", RECORD)
OF_SNAKEMAKE = ".snakemake_timestamp"  # in every folder that a rule made
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class Fault(NamedTuple):
    """What is wrong, and the file or folder that is to be removed and made again."""

    message: str
    rebuild: Path


class Verification(NamedTuple):
    """Which files were checked, what is wrong, and of which files nothing is known."""

    checked: set[Path]
    problems: list[Fault]
    unlisted: list[Path]


def record_checksums(record: Path) -> None:
    """Write the SHA-256 of every file of the run in whose folder the record lies.

    Raises:
        ArtifactError: naming the manifest, if one is not what was written.
    """
    results = record.parent
    listed = {}
    for folder in artifacts_in(results):
        listed |= _listed(folder, _whole_manifest(folder))
    with atomic_path(record) as temporary, temporary.open("w", encoding="utf-8") as file:
        for path in sorted({*listed, *files_in(results)}):
            checksum = listed.get(path) or sha256_file(path)
            file.write(f"{checksum}  {path.relative_to(results).as_posix()}\n")


def verify(results: Path) -> Verification:
    """Check everything in a run: results/{run}, as a path from where Snakemake runs.

    Raises:
        FileNotFoundError: if there is nothing to check.
    """
    present = set(files_in(results))
    if not present:
        raise FileNotFoundError(
            f"nothing is in {results}; run snakemake first, or name another run"
        )
    problems, manifests, expected = [], {}, {}
    for folder in artifacts_in(results):
        try:
            manifests[folder] = _whole_manifest(folder)
            expected |= _listed(folder, manifests[folder])
        except ArtifactError as error:
            problems.append(Fault(str(error), folder))
    try:
        expected |= _recorded(results / RECORD)
    except ValueError as error:
        problems.append(Fault(str(error), results / RECORD))
    for path, checksum in expected.items():
        if path not in present:
            problems.append(Fault(f"{path} is missing", _made_as(path, results)))
        elif sha256_file(path) != checksum:
            message = f"the content of {path} is not what was written"
            problems.append(Fault(message, _made_as(path, results)))
    checked = {*expected, *(folder / MANIFEST for folder in manifests)} & present
    return Verification(
        checked, [*problems, *_of_other_origin(manifests)], sorted(present - checked)
    )


def files_in(results: Path) -> Iterator[Path]:
    """Yield the results of a run, in links into a shared cache too; hidden files are none."""
    for name, _, files in os.walk(results, followlinks=True):
        for path in (Path(name, file) for file in files if file[0] != "."):
            inside = path.relative_to(results)
            if path.is_file() and not any(inside.is_relative_to(left) for left in LEFT_OUT):
                yield path


def artifacts_in(results: Path) -> list[Path]:
    """Return the folders of all artifacts; one inside another is part of it."""
    manifests = (path for path in files_in(results) if path.name == MANIFEST)
    return sorted({_outermost(path, results, MANIFEST) for path in manifests})


def _made_as(path: Path, results: Path) -> Path:
    """Return what a rule makes: the folder in which a file lies, or the file itself."""
    return _outermost(path, results, MANIFEST, OF_SNAKEMAKE)


def _outermost(path: Path, results: Path, *marks: str) -> Path:
    around = [folder for folder in path.parents if results in folder.parents]
    marked = [f for f in around if any((f / mark).is_file() for mark in marks)]
    return marked[-1] if marked else path


def _whole_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest after checking it against its own checksum."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
        if manifest["checksum"] == manifest_checksum(manifest):
            return manifest
    except (ValueError, KeyError):
        pass
    raise ArtifactError(f"{folder / MANIFEST} is not what was written")


def _listed(folder: Path, manifest: Mapping[str, Any]) -> dict[Path, str]:
    return {folder / name: file["sha256"] for name, file in manifest["files"].items()}


def _recorded(record: Path) -> dict[Path, str]:
    """Return the checksum of every recorded file; none are recorded before the run is done."""
    *lines, end = record.read_text(encoding="utf-8").split("\n") if record.is_file() else [""]
    found = [LINE.fullmatch(line) for line in lines]
    if end or not all(found):
        raise ValueError(f"{record} is not what was written")
    return {record.parent / line[2]: line[1] for line in found if line}


def _of_other_origin(manifests: Mapping[Path, Mapping[str, Any]]) -> Iterator[Fault]:
    """Yield the artifacts that were made from one that is not here."""
    here = {identity_of(manifest) for manifest in manifests.values()}
    for folder, manifest in manifests.items():
        for role in sorted(
            role for role, made in manifest["made_from"].items() if made not in here
        ):
            message = f"{folder} was made from another {role} than the one that is here"
            yield Fault(message, folder)


def report_verification(results: Path) -> str:
    """Verify a run and return what was checked, in lines for a terminal.

    Raises:
        ArtifactError: with the same text and what to rebuild, if anything is not what was written.
    """
    checked, problems, unlisted = verify(results)
    size = sum(path.stat().st_size for path in checked)
    lines = [f"checked {len(checked):,} files of {results}, {size:,} bytes, and their origins"]
    if unlisted:
        shown = unlisted if len(unlisted) < 10 else sorted({path.parent for path in unlisted})
        names = " ".join(map(str, shown))
        lines.append(f"not checked, in no manifest and not yet recorded by `all`: {names}")
    if not problems:
        return "\n".join([*lines, "every byte is what was written"])
    lines += [f"  {problem.message}" for problem in problems]
    lines.append(f"{len(problems)} problems; to rebuild, with all that was made from it:")
    lines.append(f"  rm -rf {' '.join(dict.fromkeys(str(p.rebuild) for p in problems))}")
    raise ArtifactError("\n".join([*lines, "  and the command that made them"]))
