"""A number with its interval, from the rows of one or several seeds, alone or in pairs.

Several seeds: Student's t over the seeds, paired where two numbers are compared. One seed: the
interval that the row has, a bootstrap over documents or villagers. Two rows of one seed that are
not paired in the table get the ends that are furthest apart, which is never narrower than a
paired interval (the deviation of a difference is at most the sum of the deviations).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import student_interval
from knnlm.evidence.selection import ALL_SEEDS, apart


@dataclass(frozen=True)
class Estimate:
    """A number and what is known of its error.

    Attributes:
        value: the number.
        low: lower end of the interval of 95 %; NaN where there is none.
        high: the upper end.
        n: what the interval rests on: seeds if there are several, else the n of the row.
        unit: of the value.
        how: what kind of interval it is, for the reader.
        freedom: degrees of freedom of Student's t; infinite for a bootstrap.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str
    how: str
    freedom: float = math.inf


@dataclass(frozen=True)
class Sample:
    """One number of all seeds: `values` by seed, and the row that summarizes them."""

    values: dict[str, float]
    summary: Estimate


def sample(rows: pd.DataFrame) -> Sample:
    """Return a number from its rows: one for each seed, and perhaps their mean.

    Args:
        rows: chosen from one tidy table.

    Raises:
        ValueError: naming the columns, if the rows are more than one number.
    """
    differing = apart(rows)
    if differing:
        described = "; ".join(f"{name}: {', '.join(found)}" for name, found in differing.items())
        raise ValueError(f"rows of more than one number; choose among {described}")
    values = dict(zip(rows["seed"], rows["value"], strict=True))
    of_all = rows[rows["seed"] == ALL_SEEDS]
    values.pop(ALL_SEEDS, None)
    if len(of_all) or len(rows) == 1:
        row = (of_all if len(of_all) else rows).iloc[0]
        how = _over(row["n"]) if len(of_all) else _within(row)
        ends = (float(row["value"]), float(row["ci_low"]), float(row["ci_high"]))
        freedom = int(row["n"]) - 1 if len(of_all) else math.inf
        return Sample(values, Estimate(*ends, int(row["n"]), str(row["unit"]), how, freedom))
    series = np.array(list(values.values()))
    return Sample(values, _student(series, str(rows["unit"].iloc[0]), paired=False))


def difference(one: Sample, other: Sample) -> Estimate:
    """Return one - other: paired over seeds, else the ends that are furthest apart."""
    return _compared(one, other, log=False)


def ratio(one: Sample, other: Sample) -> Estimate:
    """Return one / other, both above 0: paired over seeds in the logarithm, as `difference`.

    Raises:
        ValueError: if a value is not above 0.
    """
    return _compared(one, other, log=True)


def _compared(one: Sample, other: Sample, *, log: bool) -> Estimate:
    if log:
        parts = [s.summary for s in (one, other)]
        numbers = [v for s in (one, other) for v in s.values.values()]
        if min([*numbers, *(p.value for p in parts)]) <= 0:
            raise ValueError("a ratio of numbers that are not all above 0")
    forward, back = (np.log, np.exp) if log else (_same, _same)
    unit = "ratio" if log else one.summary.unit
    if len(one.values) > 1 and one.values.keys() == other.values.keys():
        pairs = [forward(one.values[seed]) - forward(other.values[seed]) for seed in one.values]
        found = _student(np.array(pairs), unit, paired=True)
        value, low, high = (float(back(x)) for x in (found.value, found.low, found.high))
        return replace(found, value=value, low=low, high=high)
    a, b = one.summary, other.summary
    value = float(back(forward(a.value) - forward(b.value)))
    constant = list(other.values) == [""]  # a level that belongs to no seed, such as theory
    b_low, b_high = (b.value, b.value) if constant else (b.low, b.high)
    low, high = (
        float(back(forward(x) - forward(y))) for x, y in ((a.low, b_high), (a.high, b_low))
    )
    how = a.how if constant or np.isnan(low) else f"{a.how}, not paired: ends furthest apart"
    return Estimate(value, low, high, a.n, unit, how, min(a.freedom, b.freedom))


def _same(x: float) -> float:
    return x


def _student(values: NDArray[np.float64], unit: str, *, paired: bool) -> Estimate:
    low, high = student_interval(values)
    how = _over(len(values), paired=paired)
    return Estimate(float(values.mean()), low, high, len(values), unit, how, len(values) - 1)


def _over(n_seeds: int, *, paired: bool = False) -> str:
    return f"Student's t over {n_seeds} {'paired ' if paired else ''}seeds"


def _within(row: pd.Series) -> str:
    if np.isnan(row["ci_low"]):
        return "no interval: it rests on one seed, or on too few documents"
    return "rests on one seed: bootstrap within it"
