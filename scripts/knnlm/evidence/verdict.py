"""The verdicts of a run in the terminal, and how they and their numbers are written everywhere.

Standard library only, and rich where it is drawn: Snakemake's process imports this module when a
run has ended.
"""

import csv
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
MIXED = "differs"  # of a claim whose readings, or models, have several verdicts
STYLES = {HOLDS: "green", FAILS: "red", UNDECIDED: "yellow", NOT_RUN: "dim"}
PAPERS, OURS = "papers", "ours"  # whose a claim is: the papers', or a control of ours
COUNTED = {PAPERS: "claims of the papers", OURS: "stricter controls of ours"}
ERROR_RATE = 0.05  # of an interval of 95 %
UNITS = {"percent": " %", "nats per token": " nats/token", "ratio": "", "share": ""}

Verdict = Mapping[str, str]


def read_verdicts(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of verdicts, every cell as text.

    Raises:
        OSError: if there is no such file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(value: Any) -> str:
    """Return a number with four significant digits, thousands apart; nothing for a missing one.

    A text that is no number stays what it is.
    """
    try:
        value = float(value)
    except (TypeError, ValueError):
        return value or ""
    if math.isnan(value):
        return ""
    if value.is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return text if "e" not in text else f"{value:.2e}"


def with_interval(value: Any, low: Any, high: Any) -> tuple[str, str]:
    """Return a value and its interval in brackets, with two digits of the interval's width.

    The interval is "" where there is none or it has no width.
    """
    try:
        numbers = [float(value), float(low), float(high)]
    except ValueError:  # "" in a table read as text
        return number(value), ""
    width = numbers[2] - numbers[1]
    if not (width > 0 and math.isfinite(width)):  # counted, or without an interval
        return number(value), ""
    decimals = min(max(1 - math.floor(math.log10(width)), 0), 6)
    shown, low, high = (f"{x:z,.{decimals}f}" for x in numbers)  # z: no -0
    return shown, f"[{low}, {high}]"


def ours(row: Verdict) -> str:
    """Return our number with its interval and unit."""
    shown, interval = with_interval(row["ours"], row["ci_low"], row["ci_high"])
    unit = UNITS.get(row["unit"], f" {row['unit']}")
    return f"{shown} {interval}".strip() + unit if shown else ""


def counts(rows: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    """Return how many claims have each verdict, apart for those of the papers and for our own.

    What the papers claim and what our stricter controls ask are two questions: a control of ours
    that does not hold contradicts no paper. A claim with several readings or models counts once.
    """
    claims = readings_of(rows).values()
    found = Counter((readings[0]["whose"], verdict_of(readings)) for readings in claims)
    return {whose: {v: found[whose, v] for v in (*STYLES, MIXED)} for whose in COUNTED}


def readings_of(rows: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """Return the rows of each claim, by its id: one, or one for each reading or model."""
    claims: dict[str, list[Verdict]] = {}
    for row in rows:
        claims.setdefault(row["id"].partition("/")[0], []).append(row)
    return claims


def verdict_of(readings: Sequence[Verdict]) -> str:
    """Return the verdict on a claim: that of all its readings, or that they differ."""
    verdicts = {row["verdict"] for row in readings}
    return verdicts.pop() if len(verdicts) == 1 else MIXED


def summary(rows: Sequence[Verdict]) -> list[str]:
    """Return a line for the claims of the papers and one for our controls: how many hold."""
    return [
        f"{sum(found.values())} {COUNTED[whose]}: {found[HOLDS]} hold, {found[FAILS]} do not hold, "
        f"{found[UNDECIDED]} are undecided, {found[MIXED]} differ by reading or model, "
        f"{found[NOT_RUN]} were not run"
        for whose, found in counts(rows).items()
    ]


def holm(p_values: Sequence[float]) -> list[bool]:
    """Return which of several verdicts stay decided when all are corrected for their count.

    Holm (1979): the least p of m is compared with 0.05 / m, the next with 0.05 / (m - 1), and so
    on until one is too large. The chance that any verdict is decided wrongly is then at most 5 %,
    however they depend on each other.
    """
    stays = [False] * len(p_values)
    by_size = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, place in enumerate(by_size):
        if p_values[place] > ERROR_RATE / (len(p_values) - rank):
            break
        stays[place] = True
    return stays


def correction(rows: Iterable[Verdict]) -> str:
    """Return what the number of verdicts does to their error, and how many stay decided; or ""."""
    tested = [row for row in rows if row["p"]]
    if not tested:
        return ""
    n, decided = len(tested), sum(row["verdict"] in (HOLDS, FAILS) for row in tested)
    left = Counter(
        row["verdict"]
        for row, stays in zip(tested, holm([float(row["p"]) for row in tested]), strict=True)
        if stays
    )
    return (
        f"No verdict is corrected for the number of verdicts. {n} of them rest on an interval of "
        f"95 %: if all {n} numbers lay on their borders and were independent, {ERROR_RATE * n:.1f} "
        f"verdicts would be decided by chance, and at least one with a probability of "
        f"{100 * (1 - (1 - ERROR_RATE) ** n):.0f} %. After Holm's correction, with p-values taken "
        f"from the intervals (Student's t over seeds, else the normal distribution), "
        f"{left.total()} of the {decided} decided ones stay decided: {left[HOLDS]} hold, "
        f"{left[FAILS]} do not hold."
    )


def print_verdicts(path: Path) -> None:
    """Print the verdicts of a run, as a table if the output is a terminal."""
    rows = read_verdicts(path)
    if sys.stdout.isatty():
        _draw(rows)
    else:
        print("\n".join(lines(rows)))
    print("\n".join(summary(rows)))


def lines(rows: Sequence[Verdict]) -> list[str]:
    """Return one line a claim, of a log: verdict, our number, the claim and where it stands."""
    wide = max((len(ours(row)) for row in rows), default=0)
    return [
        f"{row['verdict']:13}  {ours(row):{wide}}  {claim(row)} [{row['paper']}, {row['exhibit']}]"
        for row in rows
    ]


def claim(row: Verdict) -> str:
    """Return the claim in words, marked if it is not the paper's."""
    marks = {PAPERS: "", OURS: "stricter: " if row["stricter_than"] else "control: "}
    return f"{marks[row['whose']]}{row['claim']}"


def _draw(rows: Sequence[Verdict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    form = {"box": box.SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1)}
    table = Table(title="What the papers claim, and our controls", title_justify="left", **form)
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=1)
    table.add_column("exhibit", max_width=16)
    table.add_column("paper", justify="right", no_wrap=True)
    table.add_column("here [95 %]", justify="right", no_wrap=True)
    for row in rows:
        why = f" ({row['reason']})" if row["verdict"] == NOT_RUN else ""
        cells = (f"{claim(row)}{why}", row["exhibit"], number(row["theirs"]), ours(row))
        # as Text, since brackets in a string would be read as markup
        verdict = Text(row["verdict"], style=STYLES[row["verdict"]])
        table.add_row(verdict, *(Text(cell) for cell in cells))
    Console().print(table)
