"""How surprising a number would be if it lay on the border of its claim: p, from its interval.

A verdict is decided if the interval of 95 % covers no border of the claim's region. The p-value
says the same in numbers: it is below 0.05 exactly where the verdict is decided. What it is needed
for is to correct the verdicts of a run for their count (`knnlm.evidence.verdict.holm`).
"""

import math

import numpy as np
from scipy import stats

from knnlm.evidence.estimates import Estimate
from knnlm.evidence.intervals import LEVEL


def p_value(found: Estimate, inside: tuple[float, float]) -> float:
    """Return the two-sided p-value of a number that is held against an open region.

    The interval's half that faces a border, divided by its quantile, is taken for the standard
    error: exact for Student's t, with the degrees of freedom of its seeds; for a bootstrap the
    normal distribution stands in for the tails that its resamples do not reach, and for ends
    furthest apart p is too large. Ratios and changes in percent are compared as logarithms, in
    which their intervals over seeds are symmetric. A number between two borders must be told from
    both, so the larger p counts; one outside from the border before it.

    Args:
        found: the number, its interval and the degrees of freedom of that.
        inside: the region in which the number lies if the claim is true; ends may be infinite.

    Returns:
        NaN where there is no interval.
    """
    if math.isnan(found.low):
        return math.nan
    numbers = (found.value, found.low, found.high, *inside)
    value, low, high, below, above = (_scaled(x, found.unit) for x in numbers)
    if value <= below:
        return _tail(below - value, high - value, found.freedom)
    if value >= above:
        return _tail(value - above, value - low, found.freedom)
    to_low, to_high = (value - below, value - low), (above - value, high - value)
    return max(_tail(*way, found.freedom) for way in (to_low, to_high))


def _scaled(x: float, unit: str) -> float:
    """Return a number as it is compared: a ratio, or a change in percent, as its logarithm."""
    if math.isinf(x):
        return x
    with np.errstate(divide="ignore"):
        if unit == "ratio":
            return float(np.log(max(x, 0.0)))
        return float(np.log1p(max(x / 100, -1.0))) if unit == "percent" else x


def _tail(distance: float, half: float, freedom: float) -> float:
    """Return p at a distance from a border, with half an interval of 95 % on that side."""
    if math.isinf(distance):
        return 0.0
    if half <= 0:
        return 1.0 if distance <= 0 else 0.0
    quantile = stats.t.ppf((1 + LEVEL) / 2, freedom)  # the normal one for infinite freedom
    return float(2 * stats.t.sf(distance / half * quantile, freedom))
