"""Making an artifact: units wait in a partial folder; the whole gets its manifest, then its name.

    with making(target, kind="datastore", made_from=..., settings=...) as made:
        ...  # write files below made.folder, skip those that an interrupted job left
        made.contents |= {"n_entries": n}

Nothing half-made ever has the final name: an error leaves the units where the next try finds them.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from knnlm.runtime.artifacts import MANIFEST, canonical_json, write_manifest
from knnlm.runtime.logs import Progress
from knnlm.runtime.signals import stop_if_asked

Unit = TypeVar("Unit")


class Target(NamedTuple):
    """An artifact to be made.

    Attributes:
        output: its final folder.
        fingerprint: of the job: its own settings and code.
        names: of its place, by kind of name: {"model": "base", "seed": "0"}, the wildcards of the
            rule. They go into the manifest, so that a reader knows a folder by what it says.
    """

    output: Path
    fingerprint: str
    names: Mapping[str, str] = {}

    @classmethod
    def of(cls, job: Any) -> "Target":
        """Return what a Snakemake job makes: the one output of its rule."""
        (output,) = job.output
        return cls(Path(output), job.params.fingerprint, dict(job.wildcards))

    @property
    def seed(self) -> int:
        """The seed in its place."""
        return int(self.names["seed"])


@dataclass
class Made:
    """What is being made.

    Attributes:
        folder: where its files go.
        contents: counts, shapes, dtypes: whatever a reader needs before opening a file.
        checksums: known SHA-256 by relative path, so that big files are not read again.
    """

    folder: Path
    contents: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)


@contextmanager
def making(
    target: Target,
    *,
    kind: str,
    made_from: Mapping[str, str],
    settings: Mapping[str, Any],
    apart: Mapping[str, str] | None = None,
    publishes: bool = True,
) -> Iterator[Made]:
    """Yield the partial folder of an artifact; when all is written, give it manifest and name.

    Args:
        target: which artifact.
        kind: what it is, such as "datastore".
        made_from: the identity of each artifact it is made from, by role.
        settings: the settings that shape it.
        apart: what else keeps units of this job apart from those of another, beside the
            fingerprint and `made_from`.
        publishes: whether this process is the one that ends the job, if several share it.
    """
    made = Made(partial_folder(target.output, target.fingerprint, {**made_from, **(apart or {})}))
    yield made
    if publishes:
        write_manifest(
            made.folder,
            kind=kind,
            names=target.names,
            settings=settings,
            made_from=made_from,
            contents=made.contents,
            checksums=made.checksums,
        )
        publish(made.folder, target.output)


def each_missing(files: Mapping[Unit, Path], *, label: str, name: str) -> Iterator[Unit]:
    """Yield the units of an artifact that are not made yet; leave between two if asked to.

    Args:
        files: the file of each unit, written when all of the unit is done.
        label: of the step, for its progress.
        name: of the units, in the plural.

    Raises:
        SystemExit: after SIGTERM, when the unit at hand is made.
    """
    missing = [unit for unit, file in files.items() if not file.is_file()]
    progress = Progress(label, total=len(files), unit=name, done=len(files) - len(missing))
    for unit in missing:
        yield unit
        progress.update(progress.done + 1)
        stop_if_asked()


def partial_folder(output: Path, fingerprint: str, made_from: Mapping[str, str]) -> Path:
    """Return the folder in which the units of an artifact wait until it is whole.

    It lies at results/{run}/partial/{artifact}/{name}: outside every declared output, which
    Snakemake deletes when a job fails, and apart from units of other settings and origins.

    Args:
        output: the final folder of the artifact.
        fingerprint: of the job: its own settings and code.
        made_from: the identities of what it reads, which the fingerprint does not cover.
    """
    name = hashlib.sha256(f"{fingerprint}{canonical_json(made_from)}".encode()).hexdigest()[:16]
    parts = output.parts
    root = parts.index("results") + 2 if "results" in parts else len(parts) - 1
    folder = Path(*parts[:root], "partial", *parts[root:], name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def publish(partial: Path, output: Path) -> None:
    """Move a whole artifact to its final name by one rename, and drop stale and unfinished units.

    Args:
        partial: the folder from `partial_folder`, with its manifest.
        output: the final name.
    """
    assert (partial / MANIFEST).is_file(), f"{partial} has no manifest yet"
    for unfinished in [*partial.rglob(".*.part")]:  # of a write that a kill cut off
        shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink(missing_ok=True)
    if output.exists():
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(output)
    shutil.rmtree(partial.parent)
