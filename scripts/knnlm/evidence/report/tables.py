"""Tables as the report shows them: the headline rows of an experiment, claims, comparisons.

Which rows of its tidy table are its headline stands in the headlines.yaml of an experiment: a list
of rows in their order, each by names of columns, with * and ? as in file names, and with a label
that may have columns in braces. An experiment without that file shows its first rows with an
interval. Names are read as words.yaml says.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from knnlm.evidence.intervals import MINIMUM_DOCUMENTS
from knnlm.evidence.recorded import RecordedRun, same_claim
from knnlm.evidence.tables import NAMES, over_seeds, read_table
from knnlm.evidence.verdict import (
    FAILS,
    HOLDS,
    MIXED,
    NOT_RUN,
    UNDECIDED,
    number,
    read_verdicts,
    readings_of,
    with_interval,
)

WORDS = Path(__file__).with_name("words.yaml")
WITHOUT_HEADLINES = 12  # rows
MARKS = {HOLDS: "\u2713", FAILS: "\u2717", UNDECIDED: "?", MIXED: "~", NOT_RUN: "\u2013"}
RANKS = (FAILS, UNDECIDED, HOLDS, NOT_RUN)  # sorted by verdict, the table begins with what fails


class Headline(NamedTuple):
    """A row of an experiment's table in the report."""

    what: str
    metric: str
    value: str
    interval: str
    n: str
    unit: str


def headline_rows(path: Path, *, experiment: str, headlines: Path | None) -> list[Headline]:
    """Return the headline rows of an experiment's tidy table, means over seeds where there are.

    Args:
        path: the table.
        experiment: whose rows are shown.
        headlines: the file that names them; None takes the first rows with an interval.

    Raises:
        ValueError: naming the file, if it is not a tidy table.
    """
    table = read_table(path)
    table = over_seeds(table[table["experiment"] == experiment]) if len(table) else table
    if headlines is None:
        first = table[table["ci_low"].notna()].head(WITHOUT_HEADLINES)
        return [_headline(row, {}) for _, row in first.iterrows()]
    return [
        _headline(row, pattern)
        for pattern in yaml.safe_load(headlines.read_text(encoding="utf-8"))
        for _, row in table[_matches(table, pattern)].iterrows()
    ]


def documents_missing(path: Path) -> str:
    """Return what to do if a table rests on too few documents for an interval, else "".

    Raises:
        ValueError: naming the file, if it is not a tidy table.
    """
    table = read_table(path)
    counts = table.loc[table["metric"] == "documents", "value"]
    if counts.empty or counts.min() >= MINIMUM_DOCUMENTS:
        return ""
    return (
        f"{path.name} rests on {counts.min():.0f} documents, so no interval over documents is "
        f"given, which needs {MINIMUM_DOCUMENTS}: use a text with more documents in test, or "
        "lower queries.tokens_per_document so that more of them are scored"
    )


def _matches(table: pd.DataFrame, pattern: Mapping[str, str]) -> pd.Series:
    """Return which rows have every name of a pattern, with * and ? as in file names."""
    matching = pd.Series(True, index=table.index)
    for column in set(pattern) & set(NAMES):
        matching &= table[column].map(lambda name, c=column: fnmatchcase(name, pattern[c]))
    return matching


def _headline(row: pd.Series, pattern: Mapping[str, str]) -> Headline:
    names = row[list(NAMES)].map(_in_words)
    label = pattern.get("label") or "{model} / {method} / {setting} / {split}"
    value, interval = with_interval(row["value"], row["ci_low"], row["ci_high"])
    return Headline(
        what=label.format(**names),
        metric=names["metric"],
        value=value,
        interval=interval,
        n=number(row["n"]),
        unit=row["unit"],
    )


def _in_words(name: str) -> str:
    """Return a name of a table as it is read: knn_lm as kNN-LM."""
    words = _words()
    phrase = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    plain = name.replace("_", " ").replace("/", ", ")
    return re.sub(rf"\b({phrase})\b", lambda found: words[found[1]], plain)


@functools.cache
def _words() -> dict[str, str]:
    return yaml.safe_load(WORDS.read_text(encoding="utf-8"))


def paper_name(key: str) -> str:
    """Return the name of a paper from its key: Chiang 2024 from chiang2024."""
    return re.sub(r"^([a-z]+)([0-9]{4})$", lambda found: f"{found[1].title()} {found[2]}", key)


def shown_claims(path: Path, *, recorded: Sequence[RecordedRun] = ()) -> list[dict[str, Any]]:
    """Return the rows of a table of verdicts with their numbers formatted, in its order.

    Args:
        path: the table.
        recorded: other runs; their verdicts on the same claims stand `beside`, by their names.
    """
    claims: list[dict[str, Any]] = [*read_verdicts(path)]
    first_of = {name: readings[0]["id"] for name, readings in readings_of(claims).items()}
    for claim in claims:
        name = claim["id"].partition("/")[0]
        if claim["verdict"] not in RANKS:
            raise ValueError(
                f"expected the verdict of claim {claim['id']} in {path} to be one of "
                f"{', '.join(RANKS)}, got {claim['verdict']!r}"
            )
        claim |= {
            "beside": {
                run.name: row["verdict"]
                for run in recorded
                if (row := run.verdicts.get(claim["id"])) and same_claim(row, claim)
            },
            # what stricter claims point to, where a claim has several readings
            "anchor": name if claim["id"] == first_of[name] != name else "",
            "paper": paper_name(claim["paper"]),
            "mark": MARKS[claim["verdict"]],
            "rank": RANKS.index(claim["verdict"]),
            **_ours(claim),
            "theirs": number(claim["theirs"]),
            "n": number(claim["n"]),
        }
    return claims


def shown_comparison(path: Path) -> list[dict[str, Any]]:
    """Return the published numbers beside ours, grouped by paper and exhibit.

    Each group has `paper`, `exhibit`, `rows` and `measured`, the number of rows that we have.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    groups = []
    for (paper, exhibit), rows in table.groupby(["paper", "exhibit"], sort=False):
        shown = [
            row | _ours(row) | {"theirs": number(row["theirs"]), "n": number(row["n"])}
            for row in rows.to_dict("records")
        ]
        shown.sort(key=lambda row: row["ours"] == "")  # stable: those we have come first
        measured = sum(row["ours"] != "" for row in shown)
        named = {"paper": paper_name(str(paper)), "exhibit": exhibit}
        groups.append(named | {"rows": shown, "measured": measured})
    return groups


def _ours(row: Mapping[str, Any]) -> dict[str, str]:
    ours, interval = with_interval(row["ours"], row["ci_low"], row["ci_high"])
    return {"ours": ours, "interval": interval}
