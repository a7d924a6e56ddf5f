"""Tidy tables: one row a number, the same columns for every experiment, the same bytes every time.

Columns are ordered, checked and formatted here and nowhere else.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from knnlm.evidence.intervals import student_interval
from knnlm.runtime.artifacts import atomic_path

NAMES = ("experiment", "corpus", "model", "split", "method", "setting", "seed", "metric")
NUMBERS = ("value", "ci_low", "ci_high")
COLUMNS = (*NAMES, *NUMBERS, "n", "unit")
FLOAT_FORMAT = "%.9g"  # above the precision of any metric, below the noise of float64 sums


def tidy(rows: Iterable[Mapping[str, Any]], *, coordinates: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return a checked table with the standard columns, rows in the given order.

    Args:
        rows: one mapping a number. `experiment`, `metric`, `value`, `n` and `unit` are required;
            names that do not apply stay empty, and so does an interval that cannot be given.
        coordinates: further columns, of numbers, for a table that holds curves: where on its
            curve a row lies, such as ("lmbda", "temperature").

    Raises:
        ValueError: for a missing or unknown column, a value or count that is no number, half an
            interval, or two rows for one number.
    """
    records = [dict(row) for row in rows]
    columns = (*COLUMNS, *coordinates)
    for record in records:
        unknown = sorted(set(record) - set(columns))
        required = {"experiment", "metric", "value", "n", "unit"}
        missing = sorted(name for name in required if record.get(name) in (None, ""))
        if unknown or missing:
            raise ValueError(
                f"expected rows with the columns {', '.join(columns)}; unknown: "
                f"{', '.join(unknown) or 'none'}, missing: {', '.join(missing) or 'none'}"
            )
        # as text before pandas sees them: beside a row without a seed, 0 would become "0.0"
        record |= {name: _text(record.get(name)) for name in (*NAMES, "unit")}
    table = pd.DataFrame(records, columns=list(columns)).astype(dict.fromkeys(NAMES, str))
    for name in (*NUMBERS, *coordinates):
        table[name] = table[name].astype(np.float64)
    table["n"] = table["n"].astype(np.int64)
    return _checked(table)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a tidy table as CSV, atomically; equal tables give equal bytes.

    Raises:
        ValueError: as `tidy`.
    """
    write_csv(path, _checked(table))


def write_texts(path: Path, table: pd.DataFrame) -> None:
    """Write a table that is not of measurements, such as one of sentences, as CSV, atomically."""
    write_csv(path, table, float_format=None)


def write_csv(path: Path, table: pd.DataFrame, *, float_format: str | None = FLOAT_FORMAT) -> None:
    """Write any table as CSV, atomically; equal tables give equal bytes."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format=float_format, lineterminator="\n")


def read_table(path: Path) -> pd.DataFrame:
    """Read a tidy table back; columns behind the standard ones are coordinates.

    Raises:
        ValueError: naming the file, if it lacks a standard column.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # an empty name is no NaN
    if tuple(table.columns[: len(COLUMNS)]) != COLUMNS:
        raise ValueError(
            f"expected {path} to have the columns {', '.join(COLUMNS)}, got "
            f"{', '.join(table.columns)}; remove it and run snakemake again"
        )
    for name in (*NUMBERS, *table.columns[len(COLUMNS) :]):
        table[name] = table[name].replace("", "nan").astype(np.float64)
    table["n"] = table["n"].astype(np.int64)
    return table


def means_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each number that several LM seeds have: mean and Student's t interval.

    These rows say how a number moves with another training run, as the rows of one seed say how
    it moves with other documents. `seed` is "all" and `n` counts the seeds.
    """
    names = [name for name in NAMES if name != "seed"]
    seeded = table[table["seed"] != ""]
    rows = []
    for key, group in seeded.groupby([*names, "unit"], sort=False):
        if len(group) > 1:
            low, high = student_interval(group["value"].to_numpy())
            numbers = {"value": group["value"].mean(), "ci_low": low, "ci_high": high}
            rows.append(dict(zip([*names, "unit"], key, strict=True)) | numbers | {"n": len(group)})
    return tidy([row | {"seed": "all"} for row in rows])


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows to show: of a number that several seeds have, their mean alone."""
    number = [name for name in table.columns if name not in ("seed", "n", *NUMBERS)]
    seeds = table.groupby(number, dropna=False)["seed"]
    several = seeds.transform(lambda of_number: (of_number == "all").any()).astype(bool)
    return table[~several | (table["seed"] == "all")]


def select(table: pd.DataFrame, **names: str) -> pd.DataFrame:
    """Return the rows with the given names, such as `method="lm", metric="hits"`.

    Raises:
        ValueError: if there is no such row.
    """
    wanted = np.ones(len(table), dtype=bool)
    for column, name in names.items():
        wanted &= (table[column] == name).to_numpy()
    if not wanted.any():
        described = ", ".join(f"{column} {name!r}" for column, name in names.items())
        raise ValueError(f"the table has no row with {described}")
    return table[wanted]


def _text(name: Any) -> str:
    return "" if name is None else str(name)


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    if tuple(table.columns[: len(COLUMNS)]) != COLUMNS:
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}, got {list(table.columns)}")
    coordinates = list(table.columns[len(COLUMNS) :])
    for name, wrong in {
        "a value that is not a number": table["value"].isna(),
        "half an interval": table["ci_low"].isna() != table["ci_high"].isna(),
        "an interval upside down": table["ci_low"] > table["ci_high"],
        "a negative n": table["n"] < 0,
        "the names of an earlier row": table.duplicated(subset=[*NAMES, *coordinates]),
    }.items():
        if wrong.any():
            row = table.loc[wrong.idxmax(), list(NAMES)]
            raise ValueError(f"a row of the table has {name}: {' / '.join(row)}")
    return table
