"""Choosing rows of tidy tables by what a YAML block or a CSV cell says, for claims and comparison.

A selector gives values of columns, such as {method: knn_lm, metric: bytes}. Seeds are never
selected: all seeds of a number belong together. A value in braces is a setting of the run, as in
"{baseline.index}/tuned", so that a selector holds at every scale. A * stands for any text.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.evidence.tables import COLUMNS, NAMES, read_table

ALL_SEEDS = "all"  # the seed of a row that is a mean over seeds
SELECTABLE = tuple(name for name in NAMES if name not in ("experiment", "seed"))


class SelectionError(ValueError):
    """A selector that cannot be right: it names something that does not exist."""


class NothingSelected(LookupError):  # noqa: N818, it is an outcome, not a mistake
    """A selector without rows: the run's settings leave them out."""


def read_tables(paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Return the tidy tables among some CSV files, by name; others, such as examples, are left out.

    Raises:
        OSError: if a file cannot be read.
    """
    tidy = {}
    for path in paths:
        with path.open(encoding="utf-8") as file:
            if file.readline().rstrip("\n").split(",")[: len(COLUMNS)] == list(COLUMNS):
                tidy[path.stem] = read_table(path)
    return tidy


def filled(template: str, settings: Mapping[str, Any]) -> str:
    """Return a value with each {dotted.path} replaced by that setting; a list has its indices.

    Raises:
        SelectionError: naming the path, if there is no such setting.
    """

    def setting(match: re.Match[str]) -> str:
        found: Any = settings
        for part in match[1].split("."):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, TypeError, ValueError):
                raise SelectionError(f"no setting {match[1]!r} in the config") from None
        return str(found)

    return re.sub(r"\{([^{}]+)\}", setting, template)


def chosen_rows(
    table: pd.DataFrame, selector: Mapping[str, Any], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the rows that a selector chooses, of all seeds.

    Args:
        table: a tidy table.
        selector: values of columns; `metric` must be among them. Coordinates of a curve are
            compared as numbers; a * in another column stands for any text.
        settings: of the run, for values in braces.

    Raises:
        SelectionError: for a column that the table lacks, a metric that none of its rows has, or
            an unknown setting.
        NothingSelected: if no row has all the values.
    """
    coordinates = list(table.columns[len(COLUMNS) :])
    known = [*SELECTABLE, *coordinates]
    unknown = sorted(set(selector) - set(known))
    if unknown or "metric" not in selector:
        wrong = f"column {', '.join(unknown)}" if unknown else "a selector without a metric"
        raise SelectionError(f"{wrong}; expected metric and others of {', '.join(known)}")
    wanted = {name: filled(str(value), settings) for name, value in selector.items()}
    metrics = table["metric"].unique()
    if wanted["metric"] not in metrics:
        raise SelectionError(f"metric {wanted['metric']!r}; expected one of {', '.join(metrics)}")
    inside = pd.Series(data=True, index=table.index)
    for name, value in wanted.items():
        if name in coordinates:
            inside &= table[name] == float(value)
        elif "*" in value:
            inside &= table[name].map(lambda found, like=value: fnmatchcase(found, like))
        else:
            inside &= table[name] == value
    if not inside.any():
        described = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise NothingSelected(f"no row with {described}")
    return table[inside]


def apart(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns in which chosen rows differ beside the seed, with their values.

    It is empty where the rows are one number of several seeds. Coordinates of a curve may differ
    between seeds, as where each seed tunes the others at a given k, but not within one.
    """
    coordinates = [*rows.columns[len(COLUMNS) :]]
    within = rows.groupby("seed")[coordinates].nunique(dropna=False).max() if coordinates else {}
    candidates = [*SELECTABLE, "unit", *(name for name in coordinates if within[name] > 1)]
    found = {name: [str(value) for value in rows[name].unique()] for name in candidates}
    return {name: values for name, values in found.items() if len(values) > 1}
