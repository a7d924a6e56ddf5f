"""The verdicts in README.md and docs/verdict.md, recorded from finished runs.

    PYTHONPATH=scripts python -m knnlm.evidence.readme results/cpu-gazetteer "a second processor"

puts the verdicts of a run into docs/measurements/claims.csv, in columns of its own, with what a
reader must know of it in claims.json, and renders all recorded runs in the README. A run that was
recorded under the same name is replaced; without a name it has that of its folder. `make readme`
does it.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from knnlm.evidence.recorded import RecordedRun, read_run, read_runs, with_run, write_runs
from knnlm.evidence.verdict import (
    COUNTED,
    FAILS,
    HOLDS,
    MIXED,
    NOT_RUN,
    PAPERS,
    UNDECIDED,
    Verdict,
    claim,
    correction,
    counts,
    number,
    ours,
    readings_of,
    summary,
    verdict_of,
)
from knnlm.runtime.artifacts import atomic_path

BEGIN, END = "<!-- verdict:begin -->", "<!-- verdict:end -->"
CLAIMS, RECORD = Path("docs/measurements/claims.csv"), Path("docs/measurements/claims.json")
README, PAGE = Path("README.md"), Path("docs/verdict.md")


def record(run: Path, root: Path, *, name: str, day: date) -> None:
    """Record the verdicts of a finished run under docs/measurements/, and render them.

    Args:
        run: the folder of its results.
        root: of the checkout.
        name: by which it is recorded; a run of this name is replaced.
        day: of the record.

    Raises:
        OSError: if the run has no verdicts, environment or settings.
    """
    files = (root / CLAIMS, root / RECORD)
    recorded = read_runs(*files) if files[0].is_file() else []
    write_runs(*files, with_run(recorded, read_run(run, name=name, date=day.isoformat())))
    write_verdict(root)


def write_verdict(root: Path) -> None:
    """Write the recorded verdicts between the markers of the README and of the page.

    Raises:
        ValueError: if one of the two does not have each marker once, in order.
    """
    for name, inside in recorded_blocks(root).items():
        text = with_block((root / name).read_text(encoding="utf-8"), inside, name=name)
        with atomic_path(root / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def recorded_blocks(root: Path) -> dict[Path, str]:
    """Return what the recorded verdicts give between the markers of each file."""
    runs = read_runs(root / CLAIMS, root / RECORD)
    return {README: counted(runs[0]), PAGE: block(runs)}


def with_block(text: str, inside: str, *, name: Path) -> str:
    """Return a text with a block between its markers in the place of what stood there.

    Raises:
        ValueError: if it does not have each marker once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in after:
        raise ValueError(f"expected {name} to have {BEGIN} and then {END}, each once")
    return f"{before}{BEGIN}\n{inside}{END}{after}"


def counted(run: RecordedRun) -> str:
    """Return how many claims of each paper have each verdict, as Markdown."""
    rows = list(run.verdicts.values())
    lines = [
        *(f"- {line}." for line in summary(rows)),
        "",
        "| claims of | in all | hold | do not hold | undecided | differ by reading | not run |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    by_paper = _by_paper(rows)
    for whose in COUNTED:
        for paper, of_paper in by_paper.items():
            found = counts(of_paper)[whose]
            if any(found.values()):
                name = _name(paper) if whose == PAPERS else f"our controls, {_name(paper)}"
                cells = [found[verdict] for verdict in (HOLDS, FAILS, UNDECIDED, MIXED, NOT_RUN)]
                lines.append(f"| {name} | {' | '.join(map(str, [sum(cells), *cells]))} |")
    return "\n".join([*lines, "", f"Recorded {_described(run)}.", ""])


def block(runs: Sequence[RecordedRun]) -> str:
    """Return the verdicts as Markdown: what runs they are of, and a table for each paper.

    Args:
        runs: the first gives numbers and counts; the others their verdicts, a column each.
    """
    first, *others = runs
    rows = list(first.verdicts.values())
    lines = [*(f"- {line}." for line in summary(rows)), "", f"Recorded {_described(first)}.", ""]
    for run in others:
        lines += [f"Beside it `{run.name}`, {_described(run)}; {_differing(run, first)}.", ""]
    if corrected := correction(rows):
        lines += [corrected, ""]
    for paper, of_paper in _by_paper(rows).items():
        lines += [f"## {_name(paper)}", "", *_table(of_paper, runs), ""]
    return "\n".join(lines)


def _by_paper(rows: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    papers: dict[str, list[Verdict]] = {}
    for row in rows:
        papers.setdefault(row["paper"], []).append(row)
    return papers


def _table(rows: Sequence[Verdict], runs: Sequence[RecordedRun]) -> list[str]:
    """Return a table of the claims that were run, and a line of those that were not."""
    others = runs[1:]
    columns = ["here, 95 %", "verdict", *(f"{run.name}" for run in others)]
    lines = [
        f"| claim | exhibit | true if | paper | {' | '.join(columns)} |",
        f"|---|---|---|---:|---:|---|{'---|' * len(others)}",
    ]
    for readings in readings_of(rows).values():
        row, several = readings[0], len(readings) > 1
        if verdict_of(readings) != NOT_RUN:
            said = re.sub(r" \([^()]*\)$", "", claim(row)) if several else claim(row)
            here = f"{len(readings)} readings" if several else ours(row)
            cells = (said, row["exhibit"], row["relation"], number(row["theirs"]), here)
            verdicts = [_verdicts(run, readings) for run in runs]
            shown = [cell.replace("|", "\\|") for cell in (*cells, *verdicts)]
            lines.append(f"| {' | '.join(shown)} |")
    missing = [
        f"{claim(row).rstrip('.')} ({row['exhibit']})" for row in rows if row["verdict"] == NOT_RUN
    ]
    return [*lines, "", f"Not run: {'; '.join(missing)}."] if missing else lines


def _verdicts(run: RecordedRun, readings: Sequence[Verdict]) -> str:
    """Return the verdict of a run on a claim, or how often each if its readings differ."""
    found = Counter(
        run.verdicts[row["id"]]["verdict"] for row in readings if row["id"] in run.verdicts
    )
    if len(found) < 2:
        return next(iter(found), "")
    return ", ".join(f"{verdict}: {count}" for verdict, count in found.items())


def _described(run: RecordedRun) -> str:
    """Return date, scale, corpus, commit, seeds and processor of a run in words."""
    facts, git = run.facts, run.facts["git"]
    commit = f"commit {git['commit'][:7]}" if git["commit"] else "a copy without git"
    changed = ", with changes" if git["dirty"] else ""
    on = f"; {facts['processor']}" if facts["processor"] else ""
    seeds = (len(facts[key]) for key in ("lm_seeds", "experiment_seeds"))
    return (
        f"{facts['date']}: scale `{facts['scale']}`, corpus `{facts['corpus']}`, "
        f"{commit}{changed}; LM seeds {next(seeds)}, seeds of other experiments {next(seeds)}{on}"
    )


def _differing(run: RecordedRun, first: RecordedRun) -> str:
    """Return how many verdicts of a run are others than the first's."""
    pairs = [
        (row["verdict"], first.verdicts[name]["verdict"]) for name, row in run.verdicts.items()
    ]
    return f"{sum(one != other for one, other in pairs)} of {len(pairs)} verdicts differ"


def _name(paper: str) -> str:
    """Return a paper as it is called in the text, such as Xu 2023."""
    author = paper.rstrip("0123456789")
    return f"{author.capitalize()} {paper.removeprefix(author)}"


if __name__ == "__main__":
    folder, *named = sys.argv[1:]
    record(Path(folder), Path.cwd(), name=(named or [Path(folder).name])[0], day=date.today())
