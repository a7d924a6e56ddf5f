"""Kill one job of the workflow again and again, at random moments, and let Snakemake go on."""

import json
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from workflow_project import TINY, Project

RESULTS = Path("results/tiny")
STATE_NAME = "state.safetensors"
STATE = f"**/{STATE_NAME}"
NEAREST_NAME = "nearest.npz"  # a state too: the nearest among the keys that were compared so far
STATES = (STATE_NAME, NEAREST_NAME)
RESUMED = re.compile(r": ([\d,]+) of ([\d,]+) \w+ were done before")
LONGEST_WAIT = 0.3  # seconds from a unit to the kill: about what all tiny units take together


class Step(NamedTuple):
    """A job: the artifact that it makes, its log, and the files that are its units."""

    artifact: str
    log: str
    units: str = STATE


STEPS = {
    "train_language_model": Step("models/base/seed0", "base/seed0"),
    "continue_language_model": Step("continued/whole_model/seed0", "whole_model/seed0"),
    "finetune_macondo": Step("overspecification/base/seed0", "base/seed0"),
    "finetune_conversational": Step("conversational/base_chat/seed0", "base_chat/seed0"),
    "build_datastore_part": Step(
        "parts/datastores/base/seed0/part0", "base/seed0/part0", "shard-*/manifest.json"
    ),
    "train_index": Step(
        "parts/indexes/base/seed0/ivfpq/trained", "base/seed0/ivfpq", "centroids.faiss"
    ),
    "encode_index_part": Step(
        "parts/indexes/base/seed0/ivfpq/part0", "base/seed0/ivfpq/part0", "shard-*.npy"
    ),
    "search_part": Step(
        "parts/neighbors/base/seed0/exact/gazetteer/test/part0",
        "base/seed0/exact/gazetteer/test/part0",
        "block-*.npz",
    ),
    "search_fused_part": Step(
        "parts/neighbors/base/seed0/fused/gazetteer/test/part0",
        "base/seed0/fused/gazetteer/test/part0",
        NEAREST_NAME,
    ),
    "find_train_distributions": Step(
        "train_distributions/short/seed0", "short/seed0", "block-*.npz"
    ),
    "search_neighbors": Step(
        "neighbors/base/seed0/exact/gazetteer/test",
        "base/seed0/exact/gazetteer/test",
        "block-*.npz",
    ),
    "encode_documents": Step(
        "documents/base/seed0/gazetteer", "base/seed0/gazetteer", "*/positions.npy"
    ),
    "search_masks": Step("masks/seed0", "seed0", "*-approximate-*.npz"),
    "search_nested_shares": Step(
        "share_neighbors/part/seed0/exact/gazetteer/test",
        "part/seed0/exact/gazetteer/test",
        "block-*.npz",
    ),
    "project_distributions": Step("projections/seed0/f", "seed0/f", "*.npz"),
    "project_on_heads": Step("projections/seed0/optima", "seed0", "*.npz"),
    "train_mlp_replacement": Step("replacements/base/seed0/random", "base/seed0/random"),
    "train_output_embeddings": Step("output_embeddings/base/seed0", "base/seed0", "*.safetensors"),
    "train_macondo_mlp": Step(
        "overspecification_mlp/base/random/seed0", "base/random/seed0", "*.safetensors"
    ),
    "train_hurdle_macondo": Step("mlp_hurdle/macondo/seed0", "seed0", "*.parquet"),
    "train_hurdle_text": Step("mlp_hurdle/text/seed0", "seed0", "*.parquet"),
    "score_alternatives": Step("ruled_out/alternatives", "every_seed", "**/*.np[yz]"),
    "certify_output_vectors": Step("ruled_out/certificates", "every_seed", "seed*/*.npz"),
}


@dataclass
class Outcome:
    """What was done to a step, and what came of it."""

    kills: int = 0  # that counted: the next attempt found some units, and not all
    other: int = 0  # before the first unit or after the last
    rounds: int = 0  # times that the step was begun from nothing
    stopped: int = 0  # logs that tell of SIGTERM
    redone: list[str] = field(default_factory=list)  # units that were made twice
    altered: list[str] = field(default_factory=list)  # files of the result with other bytes


def copy_results(finished: Project, folder: Path) -> Path:
    """Copy the results of a project, and what Snakemake knows of them, to a folder."""
    for name in ("results", ".snakemake"):
        shutil.copytree(finished.folder / name, folder / name, symlinks=True)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of an artifact by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".snakemake_timestamp"
    }


def number(text: str) -> int:
    return int(text.replace(",", ""))


def finished_updates(state: Path) -> int:
    """Return what a state tells of: updates of a training, or keys that were compared."""
    if state.name == NEAREST_NAME:
        with np.load(state) as nearest:
            return int(nearest["done"])
    with state.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["training"])["done"]


class Killer:
    """Removes an artifact of a finished project and has it made anew, with kills in between."""

    def __init__(self, finished: Project, folder: Path, step: str, *, seed: int) -> None:
        self.name, self.step = step, STEPS[step]
        self.project = Project(copy_results(finished, folder))
        results = folder / RESULTS
        self.target = results / self.step.artifact
        self.partial = results / "partial" / self.step.artifact
        self.log = results / "logs" / step / f"{self.step.log}.log"
        if not self.target.exists():  # a part is removed as soon as it is joined
            self.project.snakemake(*TINY, "--", str(RESULTS / self.step.artifact))
        self.expected = contents(self.target)
        self.random = random.Random(f"{seed} {step}")
        self.outcome = Outcome()

    def run(self, *, kills: int, by: int = signal.SIGKILL) -> Outcome:
        """Make the artifact from nothing, as often as it takes until enough kills have counted."""
        wait, most_rounds = LONGEST_WAIT, 10 + 2 * kills
        while self.outcome.kills < kills and self.outcome.rounds < most_rounds:
            before = self.outcome.kills
            self.outcome.rounds += 1
            self._round(kills - before, by, wait)
            if self.outcome.kills < before + min(3, kills - before):
                wait /= 3  # the last unit came before the kill
        return self.outcome

    def _round(self, kills: int, by: int, wait: float) -> None:
        for folder in (self.target, self.partial):
            shutil.rmtree(folder, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        report = self.project.folder / "snakemake.txt"
        options = [*TINY, "--retries", str(kills + 1), "--", str(RESULTS / self.step.artifact)]
        with report.open("w") as output:
            running = subprocess.Popen(
                self.project.command(*options),
                cwd=self.project.folder,
                env=self.project.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._kill_repeatedly(running, kills, by, wait)
            assert running.wait(timeout=900) == 0, report.read_text()[-3000:]
        finally:
            if running.poll() is None:
                for process in [*psutil.Process(running.pid).children(recursive=True), running]:
                    process.kill()
        made = contents(self.target)
        names = sorted({*made, *self.expected})
        self.outcome.altered += [n for n in names if made.get(n) != self.expected.get(n)]

    def _kill_repeatedly(self, running: subprocess.Popen, kills: int, by: int, wait: float) -> None:
        dead: set[int] = set()
        units: dict[str, int] = {}
        for attempt in range(kills + 1):
            process = self._working(running, dead, units if attempt else None)
            if attempt:
                self._count(units)
            if process is None or attempt == kills:
                break
            time.sleep(self.random.uniform(0, wait))
            with suppress(psutil.NoSuchProcess):
                process.send_signal(by)
                process.wait(timeout=60)
            dead.add(process.pid)
            units = self._units()
            self.outcome.stopped += "stopped after SIGTERM" in self._text()
            self.log.unlink(missing_ok=True)  # what stands there next is of the next attempt

    def _working(
        self, running: subprocess.Popen, dead: set[int], units: dict[str, int] | None
    ) -> psutil.Process | None:
        """Wait until the job has gone on from earlier units, or published its first.

        Args:
            running: Snakemake.
            dead: processes of earlier attempts.
            units: what the last attempt left; None for the first.

        Returns:
            The job's process; None says that it was done before that.
        """
        process = None
        while running.poll() is None:
            process = process or self._script(running, dead)
            if self._units() if units is None else self._said() and not self._untold(units):
                return process if process and process.is_running() else None
            time.sleep(0.002)
        return None

    def _script(self, running: subprocess.Popen, dead: set[int]) -> psutil.Process | None:
        with suppress(psutil.Error):
            for process in psutil.Process(running.pid).children(recursive=True):
                script = "".join(process.cmdline()[1:2])
                ours = "/.snakemake/scripts/" in script and script.endswith(f".{self.name}.py")
                if ours and process.pid not in dead:
                    return process
        return None

    def _count(self, units: dict[str, int]) -> None:
        """Count the last kill by what the attempt after it says, and compare the units."""
        said = self._said()
        if not any(0 < done < total for done, total in said):
            self.outcome.other += 1
            return
        self.outcome.kills += 1
        now = self._units() | self._units(self.target)
        for name, unit in units.items():
            if not name.endswith(STATES):
                self.outcome.redone += [name] * (name in now and now[name] != unit)
        for name in self._untold(units):
            told = f"{name}: {units[name]} updates were done, the log has {said}"
            self.outcome.redone.append(told)

    def _said(self) -> list[tuple[int, int]]:
        """Return what was done before and how much there is to do, of each line that tells it."""
        return [(number(x), number(y)) for x, y in RESUMED.findall(self._text())]

    def _untold(self, units: dict[str, int]) -> list[str]:
        """Return the states of trainings that the log does not tell of having gone on from."""
        said = self._said()
        return [
            name
            for name, unit in units.items()
            if name.endswith(STATES)
            and not any(done % unit == 0 == total % (done // unit) for done, total in said)
        ]

    def _units(self, folder: Path | None = None) -> dict[str, int]:
        """Return the published units: the inode of each, or the updates that a state tells of."""
        found = {}
        for root in [folder] if folder else [*self.partial.glob("*")]:
            for path in root.glob(self.step.units):
                if not path.name.startswith("."):
                    try:
                        is_state = path.name in STATES
                        unit = finished_updates(path) if is_state else path.stat().st_ino
                    except FileNotFoundError:  # it was moved meanwhile
                        continue
                    found[path.relative_to(root).as_posix()] = unit
        return found

    def _text(self) -> str:
        try:
            return self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""
