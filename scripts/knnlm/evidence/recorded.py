"""Verdicts of runs that were recorded: one table, with a group of columns for each run.

Another processor, or another seed, may change a borderline verdict. So docs/measurements/claims.csv
keeps the verdicts of several runs beside each other, and claims.json what a reader must know of
each. The first run says which claims there are; of another, a verdict on a claim that the first
does not have, or that was changed in between, is left out.

Standard library only, as `knnlm.evidence.verdict`.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knnlm.evidence.verdict import Verdict, read_verdicts
from knnlm.runtime.artifacts import atomic_path, save_json

DESCRIBED = (
    *("id", "paper", "exhibit", "claim", "relation", "theirs", "margin", "margin_source"),
    *("whose", "stricter_than"),
)
MEASURED = ("ours", "ci_low", "ci_high", "n", "unit", "verdict", "p", "reason")
DEFINED = ("claim", "relation", "margin")  # a claim is another if one of these changes


@dataclass(frozen=True)
class RecordedRun:
    """One run.

    Attributes:
        facts: name, date, git, scale, corpus, seeds and processor.
        verdicts: its rows of the table of verdicts, by id of the claim.
    """

    facts: Mapping[str, Any]
    verdicts: Mapping[str, Verdict]

    @property
    def name(self) -> str:
        """By which it is recorded."""
        return self.facts["name"]


def read_run(folder: Path, *, name: str, date: str) -> RecordedRun:
    """Return what is to be recorded of a finished run.

    Args:
        folder: of its results.
        name: by which it is recorded.
        date: of the record.

    Raises:
        OSError: if the run has no verdicts, environment or settings.
    """
    tables = folder / "tables"
    environment = json.loads((tables / "environment.json").read_text(encoding="utf-8"))
    settings = json.loads((tables / "settings.json").read_text(encoding="utf-8"))
    kept = {key: settings[key] for key in ("scale", "corpus", "lm_seeds", "experiment_seeds")}
    facts = {"name": name, "date": date, "git": environment["git"], **kept}
    facts["processor"] = environment["cpu"]["name"]
    return RecordedRun(facts, {row["id"]: row for row in read_verdicts(tables / "claims.csv")})


def with_run(runs: Sequence[RecordedRun], new: RecordedRun) -> list[RecordedRun]:
    """Return recorded runs with a new one, in the place of the one of its name or behind all."""
    names = [run.name for run in runs]
    place = names.index(new.name) if new.name in names else len(names)
    first, *others = [*runs[:place], new, *runs[place + 1 :]]
    return [first, *(_of_the_same_claims(run, first) for run in others)]


def _of_the_same_claims(run: RecordedRun, first: RecordedRun) -> RecordedRun:
    """Return a run without its verdicts on claims that the first has not, or has otherwise."""
    same = {
        name: row
        for name, row in run.verdicts.items()
        if name in first.verdicts and same_claim(row, first.verdicts[name])
    }
    return replace(run, verdicts=same)


def same_claim(one: Verdict, other: Verdict) -> bool:
    """Return whether two rows are of a claim that was not changed in between."""
    return all(one[key] == other[key] for key in DEFINED)


def write_runs(table: Path, record: Path, runs: Sequence[RecordedRun]) -> None:
    """Write recorded runs: the table of their verdicts, and the record of what they are."""
    columns = [*DESCRIBED, *(_column(run, key) for run in runs for key in MEASURED)]
    with atomic_path(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for name, described in runs[0].verdicts.items():
            row = {key: described[key] for key in DESCRIBED}
            for run in runs:
                measured = run.verdicts.get(name, {})
                row |= {_column(run, key): measured.get(key, "") for key in MEASURED}
            writer.writerow(row)
    save_json(record, {"runs": [dict(run.facts) for run in runs]})


def read_runs(table: Path, record: Path) -> list[RecordedRun]:
    """Return the recorded runs, the first one first.

    Raises:
        OSError: if there is no such file.
    """
    rows = read_verdicts(table)
    runs = []
    for facts in json.loads(record.read_text(encoding="utf-8"))["runs"]:
        run = RecordedRun(facts, {})
        verdicts = {
            row["id"]: {key: row[key] for key in DESCRIBED}
            | {key: row[_column(run, key)] for key in MEASURED}
            for row in rows
            if row[_column(run, "verdict")]
        }
        runs.append(replace(run, verdicts=verdicts))
    return runs


def comparable_runs(table: Path, *, record: Path, settings: Mapping[str, Any]) -> list[RecordedRun]:
    """Return the recorded runs that have the scale and the corpus of a run.

    Args:
        table: of the recorded verdicts.
        record: of what the recorded runs are.
        settings: of the run.
    """
    alike = ("scale", "corpus")
    runs = read_runs(table, record)
    return [run for run in runs if all(run.facts[key] == settings[key] for key in alike)]


def _column(run: RecordedRun, key: str) -> str:
    return f"{run.name}: {key}"
