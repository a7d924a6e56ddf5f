"""The report: one page that says what holds, from what, at what cost, and what was not run.

Everything on it comes from the files of a run: tables, figures, captions, manifests, logs. A
table that is missing or broken is named on the page; it never stops the report.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from knnlm.evidence.pages import render
from knnlm.evidence.report.captions import caption_html, first_sentence, inline_svg
from knnlm.evidence.report.checks import check_artifacts
from knnlm.evidence.report.costs import costs_by_rule, disk_by_kind
from knnlm.evidence.report.tables import (
    SIGNS,
    headline_rows,
    read_claims,
    read_comparison,
)
from knnlm.runtime.artifacts import atomic_path
from knnlm.runtime.verification import RECORD, artifacts_in

SUFFIXES = (".csv", ".json")
GENERAL = ("run", "scale", "corpus", "lm_seeds", "experiment_seeds", "threads")


@dataclass
class Section:
    """One experiment on the page."""

    name: str
    question: str
    exhibits: str
    caption: Markup
    see: str
    figure: Markup | None = None
    rows: list[Any] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    settings: str = ""
    problems: list[str] = field(default_factory=list)


def write_report(
    *,
    output: Path,
    run: Path,
    questions: Mapping[str, str],
    captions: Mapping[str, str],
    switched_off: list[str],
    checksum_gib: float,
) -> None:
    """Write the page, and beside it the folder `tables` with a copy of every table.

    Args:
        output: the page to write; its folder can be mailed as it is.
        run: results/{run}.
        questions: by experiment, the docstring of its target rule: the question, then exhibits.
        captions: by experiment, the source of its figure's caption.
        switched_off: experiments that the settings leave out of the run.
        checksum_gib: GiB of the artifacts that are read again to check them; of the rest the sizes
            are checked.
    """
    tables = copy_tables(run / "tables", output.parent / "tables")
    settings = json.loads((run / "tables/settings.json").read_text(encoding="utf-8"))
    problems: list[str] = []
    claims = _read(problems, read_claims, run / "tables/claims.csv")
    comparison = _read(problems, read_comparison, run / "tables/comparison.csv")
    artifacts = artifacts_in(run)
    sections = [
        section_of(run, name, docstring, captions[name], settings, tables)
        for name, docstring in questions.items()
        if name not in switched_off
    ]
    page = render(
        "report/page.html",
        run=settings["run"],
        settings=settings,
        general={key: settings[key] for key in GENERAL},
        all_settings=as_yaml(settings),
        claims=claims or [],
        counts={v: sum(c["verdict"] == v for c in claims or []) for v in SIGNS},
        signs=SIGNS,
        comparison=comparison or [],
        sections=sections,
        switched_off={name: _question(questions[name])[0] for name in switched_off},
        problems=problems,
        tables=tables,
        costs=_read(problems, costs_by_rule, run / "tables/cost.csv", run / "logs") or [],
        disk=disk_by_kind(artifacts),
        checked=check_artifacts(artifacts, budget=int(checksum_gib * 2**30)),
        environment=json.loads((run / "tables/environment.json").read_text(encoding="utf-8")),
        explorer=(output.parent / "explorer.html").is_file(),
    )
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def section_of(
    run: Path,
    name: str,
    docstring: str,
    caption: str,
    settings: Mapping[str, Any],
    tables: list[str],
) -> Section:
    """Return what the page shows of one experiment; what cannot be shown is named instead."""
    question, exhibits = _question(docstring)
    text = caption_html(caption, name=name, settings=settings)
    section = Section(
        name=name,
        question=question,
        exhibits=exhibits,
        caption=text,
        see=first_sentence(text),
        tables=[table for table in tables if table.startswith(name)],
        settings=as_yaml(settings.get(name, {})),
    )
    figure = run / f"figures/{name}.svg"
    source = _read(section.problems, Path.read_text, figure, "utf-8")
    if source is not None:
        section.figure = _read(
            section.problems, lambda _: inline_svg(source, name=name, label=section.see), figure
        )
    table = run / f"tables/{name}.csv"
    section.rows = (
        _read(section.problems, lambda path: headline_rows(path, experiment=name), table) or []
    )
    return section


def copy_tables(source: Path, target: Path) -> list[str]:
    """Copy every table of a run into a fresh folder; return their names.

    The checksums of the run are left out: they are taken when all else is there, this page too.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    names = sorted(path.name for path in source.iterdir() if path.suffix in SUFFIXES)
    names = [name for name in names if name != RECORD]
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


def _read(problems: list[str], read: Any, path: Path, *more: Any) -> Any:
    """Return what a file holds, or None, with the reason added to the problems of the page."""
    if not path.is_file():
        problems.append(f"{path.parent.name}/{path.name} is missing: it was not part of this run")
        return None
    try:
        return read(path, *more)
    except (ValueError, KeyError) as error:
        problems.append(f"{path.parent.name}/{path.name} cannot be read: {error}")
        return None
