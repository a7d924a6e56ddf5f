"""What the papers print beside what a run measured, number by number.

data/published.csv has a row for each printed number; two of its columns, `table` and `selector`,
say which of our numbers answers it. Theirs come from models and texts of another size, so a row
compares what was done, not how well.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.evidence.estimates import sample
from knnlm.evidence.selection import NothingSelected, SelectionError, chosen_rows

PUBLISHED = (
    *("paper", "exhibit", "row", "column", "value", "unit", "source", "confidence"),
    *("table", "selector"),
)
COLUMNS = (
    *("paper", "exhibit", "row", "column", "theirs", "unit", "confidence", "source"),
    *("ours", "ci_low", "ci_high", "n", "scale", "corpus", "table"),
)


class PublishedError(ValueError):
    """A row of the published numbers that cannot be right; the message names its line."""


def read_published(path: Path) -> pd.DataFrame:
    """Return the published numbers; `value` is NaN where none could be verified.

    Raises:
        PublishedError: naming the line, for other columns, a value that is no number, or half a
            reference to one of our tables.
    """
    published = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(published.columns) != PUBLISHED:
        raise PublishedError(
            f"expected {path} to have the columns {', '.join(PUBLISHED)}, got "
            f"{', '.join(published.columns)}"
        )
    values = pd.to_numeric(published["value"].replace("", "nan"), errors="coerce")
    for wrong, rows in {
        "value is no number": values.isna() & ~published["value"].isin(["", "nan"]),
        "table and selector belong together": (published["table"] == "")
        != (published["selector"] == ""),
        "the same row twice": published.duplicated(["paper", "exhibit", "row", "column"]),
    }.items():
        if rows.any():
            raise PublishedError(f"line {rows.idxmax() + 2} of {path}: {wrong}")
    return published.assign(value=values)


def compare(
    published: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    *,
    known: Sequence[str],
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    """Return each published number that this workflow can answer beside ours.

    Args:
        published: from `read_published`.
        tables: tidy tables of the run, by name; ours stays empty where one is missing.
        known: names of all tables that there can be.
        settings: of the run.

    Returns:
        A table with the columns `COLUMNS`.

    Raises:
        PublishedError: naming the line, for an unknown table, column, metric or setting.
    """
    rows = []
    for line, number in enumerate(published.to_dict("records"), start=2):
        if not number["table"]:
            continue
        try:
            if number["table"] not in known:
                raise SelectionError(f"table {number['table']!r}; expected one of {sorted(known)}")
            ours = _ours(number, tables, settings)
        except ValueError as error:
            raise PublishedError(f"line {line} of the published numbers: {error}") from error
        kept = {key: number[key] for key in COLUMNS if key in number}
        rows.append(kept | {"theirs": number["value"], "scale": settings["scale"]} | ours)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n": "Int64"})


def parse_selector(text: str) -> dict[str, str]:
    """Return the columns and values of a selector such as `method=lm; metric=bytes`.

    Raises:
        SelectionError: if a part is not column=value.
    """
    parts = [part.partition("=") for part in text.split(";")]
    if not all(equals for _, equals, _ in parts):
        raise SelectionError(f"selector {text!r}; expected column=value; column=value")
    return {column.strip(): value.strip() for column, _, value in parts}


def _ours(
    number: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return our columns of a row; none where the run has no such table or row."""
    selector = parse_selector(number["selector"])
    if number["table"] not in tables:
        return {}
    try:
        rows = chosen_rows(tables[number["table"]], selector, settings)
    except NothingSelected:
        return {}
    found = sample(rows).summary
    numbers = {"ours": found.value, "ci_low": found.low, "ci_high": found.high, "n": found.n}
    return numbers | {"corpus": rows["corpus"].iloc[0]}
