"""Tables as the report shows them: the headline rows of an experiment, claims, comparisons.

Which rows of a tidy table are its headline, and how names are read, stands in
report_tables_headlines.yaml; an experiment that has no entry there shows its first rows with an
interval.
"""

import functools
import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from knnlm.evidence.tables import NAMES, read_table

HEADLINES = Path(__file__).with_name("headlines.yaml")
WITHOUT_ENTRY = 12  # rows
VERDICTS = ("does not hold", "undecided", "holds", "not run")
SIGNS = {"holds": "\u2713", "does not hold": "\u2717", "undecided": "?", "not run": "\u2013"}


class Headline(NamedTuple):
    """A row of an experiment's table in the report."""

    what: str
    metric: str
    value: str
    interval: str
    n: str
    unit: str


def number(value: Any) -> str:
    """Return a number with four significant digits, thousands apart; nothing for a missing one."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if value is None or pd.isna(value):
        return ""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return text if "e" not in text else f"{value:.2e}"


def estimate(value: Any, low: Any, high: Any) -> dict[str, str]:
    """Return a value and its interval as text, with two digits of the interval's width.

    Returns:
        `ours`, the value, and `interval` in brackets, "" if there is none or it has no width.
    """
    try:
        numbers = [float(value), float(low), float(high)]
    except ValueError:  # "" in a table read as text
        numbers = [math.nan, math.nan]
    width = numbers[-1] - numbers[-2] if all(map(math.isfinite, numbers)) else 0.0
    if width <= 0:  # counted, or without an interval
        return {"ours": number(value), "interval": ""}
    decimals = min(max(1 - math.floor(math.log10(width)), 0), 6)
    ours, low, high = (f"{x:z,.{decimals}f}" for x in numbers)  # z: no -0
    return {"ours": ours, "interval": f"[{low}, {high}]"}


def headline_rows(path: Path, *, experiment: str) -> list[Headline]:
    """Return the headline rows of an experiment's tidy table, means over seeds where there are.

    Raises:
        ValueError: naming the file, if it is not a tidy table.
    """
    table = read_table(path)
    table = table[table["experiment"] == experiment] if len(table) else table
    # of a number that several seeds have, their mean alone; another may have one seed
    others = [name for name in NAMES if name != "seed"]
    several = table.groupby(others)["seed"].transform(lambda seeds: (seeds == "all").any())
    table = table[~several.astype(bool) | (table["seed"] == "all")]
    wanted = _headlines().get(experiment)
    if wanted is None:
        first = table[table["ci_low"].notna()].head(WITHOUT_ENTRY)
        return [_headline(row, {}) for _, row in first.iterrows()]
    return [
        _headline(row, pattern)
        for pattern in wanted
        for _, row in table[_matches(table, pattern)].iterrows()
    ]


def _matches(table: pd.DataFrame, pattern: Mapping[str, str]) -> pd.Series:
    """Return which rows have every name of a pattern, with * and ? as in file names."""
    matching = pd.Series(True, index=table.index)
    for column in set(pattern) & set(NAMES):
        matching &= table[column].map(lambda name, c=column: fnmatchcase(name, pattern[c]))
    return matching


def _headline(row: pd.Series, pattern: Mapping[str, str]) -> Headline:
    names = row[list(NAMES)].map(_in_words)
    label = pattern.get("label") or "{model} / {method} / {setting} / {split}"
    shown = estimate(row["value"], row["ci_low"], row["ci_high"])
    return Headline(
        what=label.format(**names),
        metric=names["metric"],
        value=shown["ours"],
        interval=shown["interval"],
        n=number(row["n"]),
        unit=row["unit"],
    )


def _in_words(name: str) -> str:
    """Return a name of a table as it is read: knn_lm as kNN-LM."""
    words = _headlines()["words"]
    phrase = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    plain = name.replace("_", " ").replace("/", ", ")
    return re.sub(rf"\b({phrase})\b", lambda found: words[found[1]], plain)


@functools.cache
def _headlines() -> dict[str, Any]:
    return yaml.safe_load(HEADLINES.read_text(encoding="utf-8"))


def paper_name(key: str) -> str:
    """Return the name of a paper from its key: Chiang 2024 from chiang2024."""
    return re.sub(r"^([a-z]+)([0-9]{4})$", lambda found: f"{found[1].title()} {found[2]}", key)


def read_claims(path: Path) -> list[dict[str, Any]]:
    """Return the claims with their numbers formatted, in the order of the file."""
    claims = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    for claim in claims:
        if claim["verdict"] not in SIGNS:
            raise ValueError(
                f"expected the verdict of claim {claim['id']} in {path} to be one of "
                f"{', '.join(SIGNS)}, got {claim['verdict']!r}"
            )
        claim |= {
            "paper": paper_name(claim["paper"]),
            "sign": SIGNS[claim["verdict"]],
            "rank": VERDICTS.index(claim["verdict"]),
            **estimate(claim["ours"], claim["ci_low"], claim["ci_high"]),
            "theirs": number(claim["theirs"]),
            "n": number(claim["n"]),
        }
    return claims


def read_comparison(path: Path) -> list[dict[str, Any]]:
    """Return the published numbers beside ours, grouped by paper and exhibit.

    Each group has `paper`, `exhibit`, `rows` and `measured`, the number of rows that we have.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    groups = []
    for (paper, exhibit), rows in table.groupby(["paper", "exhibit"], sort=False):
        shown = [
            row
            | estimate(row["ours"], row["ci_low"], row["ci_high"])
            | {"theirs": number(row["theirs"]), "n": number(row["n"])}
            for row in rows.to_dict("records")
        ]
        shown.sort(key=lambda row: row["ours"] == "")  # stable: those we have come first
        measured = sum(row["ours"] != "" for row in shown)
        named = {"paper": paper_name(str(paper)), "exhibit": exhibit}
        groups.append(named | {"rows": shown, "measured": measured})
    return groups
