"""Is a results folder what was written? Every file, every origin, and what to rebuild if not.

Artifacts are checked against their manifests, a manifest against its own form and checksum;
tables, figures and the report, which have none, against the record that ends a run. What neither
lists is named, so that nothing is silently taken for whole.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from knnlm.runtime.artifacts import (
    MANIFEST,
    ArtifactError,
    identity_of,
    manifest_checksum,
    save_json,
    sha256_file,
)
from knnlm.runtime.logs import LOGGER

RECORD = "checksums.json"
NOT_CHECKED = ("logs", "benchmarks", "partial", "parts")
OF_SNAKEMAKE = ".snakemake_timestamp"  # it marks folders that it has seen made


class Problem(NamedTuple):
    """What is wrong, and the file or folder that is to be removed and made again."""

    message: str
    rebuild: Path


class Verification(NamedTuple):
    """What was checked in a results folder, and what was found."""

    artifacts: int
    files: int
    n_bytes: int
    recorded: bool
    problems: list[Problem]
    unlisted: list[Path]  # in no manifest and no record: nothing is known of them


def record_checksums(output: Path, made: Iterable[Path]) -> None:
    """Write the SHA-256 of every file that a run has made and that no manifest lists.

    Args:
        output: the record.
        made: files, and folders of them.
    """
    save_json(output, {path.as_posix(): sha256_file(path) for path in _files(made)})


def _files(made: Iterable[Path]) -> Iterator[Path]:
    for path in sorted(made):
        inside = walk(path) if path.is_dir() else [path]
        yield from (p for p in sorted(inside) if p.name != OF_SNAKEMAKE)


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; links into a shared cache are followed."""
    for name, _, files in os.walk(folder, followlinks=True):
        yield from (path for path in (Path(name) / file for file in files) if path.is_file())


def verify(results: Path) -> Verification:
    """Check everything in a results folder.

    Args:
        results: results/{run}, as a path from the folder in which Snakemake runs.

    Returns:
        Counts and problems; no problem means that every byte is what was written.

    Raises:
        FileNotFoundError: if there is nothing to check.
    """
    folders = artifacts_in(results) if results.is_dir() else []
    if not folders:
        raise FileNotFoundError(
            f"nothing is in {results}; run snakemake first, or name another run"
        )
    problems: list[Problem] = []
    identities, origins = {}, []
    files = n_bytes = 0
    for folder in folders:
        try:
            manifest = _whole_manifest(folder)
        except ArtifactError as error:
            problems.append(Problem(str(error), folder))
            continue
        LOGGER.info("checking %s", folder)
        problems += [Problem(message, folder) for message in _altered(folder, manifest["files"])]
        identities[identity_of(manifest)] = folder
        origins.append((folder, manifest["made_from"]))
        files += 1 + len(manifest["files"])
        n_bytes += sum(recorded["bytes"] for recorded in manifest["files"].values())
    for folder, made_from in origins:
        problems += [
            Problem(f"{folder} was made from another {role} than the one that is here", folder)
            for role, expected in sorted(made_from.items())
            if expected not in identities
        ]
    record = results / "tables" / RECORD
    recorded = _recorded(record)
    found = [] if recorded is None else _against_record(recorded)
    if recorded is None and record.is_file():
        problems.append(Problem(f"{record} is not what was written", record))
    return Verification(
        artifacts=len(folders),
        files=files,
        n_bytes=n_bytes,
        recorded=record.is_file(),
        problems=[*problems, *found],
        unlisted=_unlisted(results, {*folders, record, *map(Path, recorded or {})}),
    )


def _unlisted(results: Path, listed: set[Path]) -> list[Path]:
    """Return the files that are neither listed nor in a listed folder."""
    checked = (p for p in results.iterdir() if p.name not in (*NOT_CHECKED, OF_SNAKEMAKE))
    return [p for p in _files(checked) if listed.isdisjoint((p, *p.parents))]


def artifacts_in(results: Path) -> list[Path]:
    """Return the folders of all artifacts; one inside another is part of it."""
    found: list[Path] = []
    manifests = [path for path in walk(results) if path.name == MANIFEST]
    for folder in sorted((path.parent for path in manifests), key=lambda f: (len(f.parts), f)):
        checked = folder.relative_to(results).parts[0] not in NOT_CHECKED
        if checked and not any(outer in folder.parents for outer in found):
            found.append(folder)
    return sorted(found)


def _whole_manifest(folder: Path) -> dict:
    """Return a manifest after checking every byte of it.

    Raises:
        ArtifactError: if it is not what was written.
    """
    altered = ArtifactError(f"{folder / MANIFEST} is not what was written")
    try:
        manifest = _whole_json(folder / MANIFEST)
    except ValueError as error:
        raise altered from error
    if manifest.get("checksum") != manifest_checksum(manifest):
        raise altered
    return manifest


def _whole_json(path: Path) -> dict:
    """Return a document in the form in which `save_json` writes it.

    Raises:
        ValueError: if its form is another one.
    """
    text = path.read_text(encoding="ascii")
    document = json.loads(text)
    if text != json.dumps(document, sort_keys=True, indent=1) + "\n":
        raise ValueError(f"{path} has another form than what was written")
    return document


def _altered(folder: Path, listed: dict[str, dict]) -> Iterator[str]:
    """Yield what is wrong with the files of an artifact."""
    present = {path.relative_to(folder).as_posix() for path in _files([folder])} - {MANIFEST}
    for name, recorded in sorted(listed.items()):
        path = folder / name
        if name not in present:
            yield f"{path} is missing"
        elif path.stat().st_size != recorded["bytes"]:
            expected, got = recorded["bytes"], path.stat().st_size
            yield f"expected {path} to have {expected:,} bytes, got {got:,}"
        elif sha256_file(path) != recorded["sha256"]:
            yield f"the content of {path} is not what was written (checksum differs)"
    for name in sorted(present - set(listed)):
        yield f"{folder / name} is in no manifest"


def _recorded(record: Path) -> dict[str, str] | None:
    """Return the checksum of every recorded file; None if there is no whole record."""
    try:
        return _whole_json(record)
    except (FileNotFoundError, ValueError):
        return None


def _against_record(recorded: dict[str, str]) -> Iterator[Problem]:
    for name, expected in recorded.items():
        path = Path(name)
        if not path.is_file():
            yield Problem(f"{path} is missing", path)
        elif sha256_file(path) != expected:
            yield Problem(f"the content of {path} is not what the run recorded", path)


def describe(found: Verification, results: Path) -> str:
    """Return what was checked and what to do, in lines for a terminal."""
    lines = [
        f"checked {found.artifacts} artifacts of {results}: {found.files:,} files, "
        f"{found.n_bytes:,} bytes, and their origins"
    ]
    if not found.recorded:
        lines.append("tables and figures were not checked: they are recorded when `all` is done")
    elif found.unlisted:
        names = " ".join(map(str, found.unlisted))
        lines.append(f"not checked, in no record (`all` writes it): {names}")
    if not found.problems:
        return "\n".join([*lines, "every byte is what was written"])
    lines += [f"  {problem.message}" for problem in found.problems]
    rebuild = dict.fromkeys(str(problem.rebuild) for problem in found.problems)
    lines.append(f"{len(found.problems)} problems; to rebuild, with all that was made from it:")
    return "\n".join([*lines, f"  rm -rf {' '.join(rebuild)}", "  and the command that made them"])


def report_verification(results: Path) -> str:
    """Verify a results folder and return what to tell the user.

    Raises:
        ArtifactError: with the same text, if anything is not what was written.
    """
    found = verify(results)
    text = describe(found, results)
    if found.problems:
        raise ArtifactError(text)
    return text
