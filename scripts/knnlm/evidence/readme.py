"""The verdict in README.md: recorded from a finished run, and written between two markers.

    PYTHONPATH=scripts python -m knnlm.evidence.readme results/cpu-gazetteer

copies the verdicts of a run to docs/measurements/claims.csv, with what a reader must know of the
run in claims.json beside it, and renders both in the README. `make readme` does it.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from knnlm.evidence.verdict import (
    NOT_RUN,
    Verdict,
    claim,
    correction,
    number,
    ours,
    read_verdicts,
    summary,
)
from knnlm.runtime.artifacts import atomic_path, save_json

BEGIN, END = "<!-- verdict:begin -->", "<!-- verdict:end -->"
CLAIMS, RECORD = Path("docs/measurements/claims.csv"), Path("docs/measurements/claims.json")
README = Path("README.md")


def record(run: Path, root: Path, *, day: date) -> None:
    """Record the verdicts of a finished run under docs/measurements/ and write_verdict the README.

    Args:
        run: the folder of its results.
        root: of the checkout.
        day: of the record.

    Raises:
        OSError: if the run has no verdicts, environment or settings.
    """
    environment = json.loads((run / "tables/environment.json").read_text(encoding="utf-8"))
    settings = json.loads((run / "tables/settings.json").read_text(encoding="utf-8"))
    shutil.copyfile(run / "tables/claims.csv", root / CLAIMS)
    kept = {key: settings[key] for key in ("scale", "corpus", "lm_seeds", "experiment_seeds")}
    save_json(root / RECORD, kept | {"date": day.isoformat(), "git": environment["git"]})
    write_verdict(root)


def write_verdict(root: Path) -> None:
    """Write the recorded verdicts between the markers of the README.

    Raises:
        ValueError: if the README does not have each marker once, in order.
    """
    text = (root / README).read_text(encoding="utf-8")
    with atomic_path(root / README) as temporary:
        temporary.write_text(with_block(text, recorded_block(root)), encoding="utf-8")


def recorded_block(root: Path) -> str:
    """Return the block that the recorded verdicts give."""
    facts = json.loads((root / RECORD).read_text(encoding="utf-8"))
    return block(read_verdicts(root / CLAIMS), facts)


def with_block(text: str, inside: str) -> str:
    """Return a text with a block between its markers in the place of what stood there.

    Raises:
        ValueError: if it does not have each marker once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in after:
        raise ValueError(f"expected {README} to have {BEGIN} and then {END}, each once")
    return f"{before}{BEGIN}\n{inside}{END}{after}"


def block(rows: Sequence[Verdict], facts: Mapping[str, Any]) -> str:
    """Return the verdicts as Markdown: what run they are of, a table, and what was not run.

    Args:
        rows: of the table of verdicts.
        facts: date, git, scale, corpus and seeds of the run.
    """
    git = facts["git"]
    commit = f"commit {git['commit'][:7]}" if git["commit"] else "a copy without git"
    changed = ", with changes" if git["dirty"] else ""
    run = f"scale `{facts['scale']}`, corpus `{facts['corpus']}`, {commit}{changed}"
    lines = [
        *(f"- {line}." for line in summary(rows)),
        "",
        f"Recorded {facts['date']}: {run}; LM seeds {len(facts['lm_seeds'])}, "
        f"seeds of other experiments {len(facts['experiment_seeds'])}.",
        "",
        "| claim | exhibit | true if | paper | here, 95 % | verdict |",
        "|---|---|---|---:|---:|---|",
    ]
    for row in rows:
        if row["verdict"] != NOT_RUN:
            cells = (claim(row), _exhibit(row), row["relation"], number(row["theirs"]))
            shown = [cell.replace("|", "\\|") for cell in (*cells, ours(row), row["verdict"])]
            lines.append(f"| {' | '.join(shown)} |")
    missing = [
        f"{claim(row).rstrip('.')} ({_exhibit(row)})" for row in rows if row["verdict"] == NOT_RUN
    ]
    lines += ["", f"Not run: {'; '.join(missing)}."] if missing else []
    if corrected := correction(rows):
        lines += ["", corrected]
    return "\n".join(lines) + "\n"


def _exhibit(row: Verdict) -> str:
    return f"{row['paper'].rstrip('0123456789').capitalize()}, {row['exhibit']}"


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path.cwd(), day=date.today())
