"""The report: one page that says what holds, from what, at what cost, and what was not run.

Everything on it comes from the files of a run: tables, figures, captions, manifests, logs. A
table that is missing or broken is named on the page; it never stops the report.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from knnlm.evidence.pages import render
from knnlm.evidence.recorded import RecordedRun, comparable_runs
from knnlm.evidence.report.captions import caption_html, first_sentence, inline_svg
from knnlm.evidence.report.checks import check_artifacts
from knnlm.evidence.report.costs import costs_by_experiment, costs_by_rule, disk_by_kind
from knnlm.evidence.report.tables import (
    MARKS,
    documents_missing,
    headline_rows,
    shown_claims,
    shown_comparison,
)
from knnlm.evidence.verdict import COUNTED, correction, counts
from knnlm.runtime.artifacts import atomic_path
from knnlm.runtime.verification import artifacts_in

SUFFIXES = (".csv", ".json")


@dataclass
class Section:
    """One experiment on the page."""

    name: str
    question: str
    exhibits: str
    caption: Markup
    see: str
    tables: list[str]
    settings: str
    figure: Markup | None = None
    rows: list[Any] | None = None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """What the page shows of the experiments.

    Attributes:
        questions: by experiment, the docstring of its target rule: the question, then exhibits.
        not_run: by experiment that is not part of the run, why.
        tables: by table, the experiment that makes it.
        captions: by experiment, the file of its caption.
        headlines: by experiment that has one, the file of its headlines.
        recorded: the table and the record of the verdicts of earlier runs, or nothing.
    """

    questions: Mapping[str, str]
    not_run: Mapping[str, str]
    tables: Mapping[str, str]
    captions: Mapping[str, Path]
    headlines: Mapping[str, Path]
    recorded: Sequence[str] = ()


def write_report(*, output: Path, run: Path, shown: Shown, checksum_gib: float) -> None:
    """Write the page, and beside it the folder `tables` with a copy of every table.

    Args:
        output: the page to write; its folder can be mailed as it is.
        run: results/{run}.
        shown: what it shows of the experiments.
        checksum_gib: GiB of the artifacts that are read again to check them; of the rest the sizes
            are checked.
    """
    tables = copy_tables(run / "tables", output.parent / "tables")
    settings = json.loads((run / "tables/settings.json").read_text(encoding="utf-8"))
    problems: list[str] = []
    recorded = _recorded(problems, shown.recorded, settings)
    claims = _read(problems, shown_claims, run / "tables/claims.csv", recorded=recorded) or []
    artifacts = artifacts_in(run)
    page = render(
        "report/page.html",
        run=settings["run"],
        settings=settings,
        all_settings=as_yaml(settings),
        claims=claims,
        counts=counts(claims),
        counted=COUNTED,
        correction=correction(claims),
        marks=MARKS,
        comparison=_read(problems, shown_comparison, run / "tables/comparison.csv") or [],
        sections=[
            section_of(name, run, shown, settings, tables)
            for name in shown.questions
            if name not in shown.not_run
        ],
        not_run={
            name: (_question(shown.questions[name])[0], why) for name, why in shown.not_run.items()
        },
        problems=problems,
        tables=tables,
        costs=_read(problems, costs_by_rule, run / "tables/cost.csv", logs=run / "logs") or [],
        shares=_read(problems, costs_by_experiment, run / "tables/cost.csv") or [],
        disk=disk_by_kind(artifacts),
        checked=check_artifacts(artifacts, budget=int(checksum_gib * 2**30)),
        environment=json.loads((run / "tables/environment.json").read_text(encoding="utf-8")),
        explorer=(output.parent / "explorer.html").is_file(),
    )
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def by_experiment(paths: Iterable[str]) -> dict[str, Path]:
    """Return files by the folder in which each lies: that of its experiment."""
    return {path.parent.name: path for path in map(Path, paths)}


def section_of(
    name: str, run: Path, shown: Shown, settings: Mapping[str, Any], copied: list[str]
) -> Section:
    """Return what the page shows of one experiment; what cannot be shown is named instead."""
    question, exhibits = _question(shown.questions[name])
    caption = caption_html(shown.captions[name], settings)
    section = Section(
        name=name,
        question=question,
        exhibits=exhibits,
        caption=caption,
        see=first_sentence(caption),
        tables=[table for table in copied if shown.tables.get(Path(table).stem) == name],
        settings=as_yaml(settings.get(name, {})),
    )
    figure, table = run / f"figures/{name}.svg", run / f"tables/{name}.csv"
    section.figure = _read(section.problems, inline_svg, figure, label=section.see)
    headlines = shown.headlines.get(name)
    section.rows = _read(
        section.problems, headline_rows, table, experiment=name, headlines=headlines
    )
    if section.rows is not None and (missing := documents_missing(table)):
        section.problems.append(missing)
    return section


def copy_tables(source: Path, target: Path) -> list[str]:
    """Copy every table of a run into a fresh folder; return their names."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    names = sorted(path.name for path in source.iterdir() if path.suffix in SUFFIXES)
    for name in names:
        shutil.copyfile(source / name, target / name)
    return names


def as_yaml(settings: Any) -> str:
    """Return settings as YAML, in the order of the config."""
    return yaml.safe_dump(settings, sort_keys=False, width=90, default_flow_style=None)


def _question(docstring: str) -> tuple[str, str]:
    """Split the docstring of a target rule into its question and its exhibits."""
    first, _, rest = docstring.strip().partition("\n")
    return first.strip(), " ".join(rest.split()).removeprefix("Exhibits: ").removeprefix(
        "Exhibit: "
    )


def _recorded(
    problems: list[str], files: Sequence[str], settings: Mapping[str, Any]
) -> list[RecordedRun]:
    """Return the recorded runs that this one can stand beside."""
    if not files:
        return []
    table, record = map(Path, files)
    more = {"record": record, "settings": settings}
    return _read(problems, comparable_runs, table, **more) or []


def _read(problems: list[str], read: Any, path: Path, **more: Any) -> Any:
    """Return what a file holds, or None, with the reason added to the problems of the page."""
    if not path.is_file():
        problems.append(f"{path.parent.name}/{path.name} is missing: it was not part of this run")
        return None
    try:
        return read(path, **more)
    except (ValueError, KeyError) as error:
        problems.append(f"{path.parent.name}/{path.name} cannot be read: {error}")
        return None
