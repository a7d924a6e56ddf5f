"""p-values of verdicts, against the tests of scipy and the verdicts themselves."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from knnlm.evidence.claims import verdict
from knnlm.evidence.estimates import Estimate, ratio, sample
from knnlm.evidence.intervals import student_interval
from knnlm.evidence.significance import p_value
from knnlm.evidence.tables import tidy

BELOW, ABOVE = (-math.inf, 0.0), (0.0, math.inf)
finite = st.floats(-100, 100)


def seeds(values, **names):
    row = {"experiment": "e", "metric": "m", "n": 9, "unit": "nats"} | names
    return sample(tidy(row | {"seed": i, "value": v} for i, v in enumerate(values)))


@pytest.mark.parametrize("inside", [BELOW, ABOVE])
def test_over_seeds_p_is_that_of_the_t_test(inside):
    values = [0.4, 1.5, 0.9, 1.0]

    found = p_value(seeds(values).summary, inside)

    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)


def test_a_ratio_over_seeds_is_tested_in_the_logarithm():
    one, other = [2.0, 4.5, 8.0], [1.9, 3.0, 4.0]

    found = p_value(ratio(seeds(one), seeds(other)), (-math.inf, 1.0))

    expected = stats.ttest_rel(np.log(one), np.log(other)).pvalue
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_change_in_percent_over_seeds_is_tested_in_the_logarithm():
    logs = np.array([-0.3, -0.1, -0.25])
    value, low, high = 100 * np.expm1([logs.mean(), *student_interval(logs)])

    found = p_value(Estimate(value, low, high, 3, "percent", "", freedom=2), BELOW)

    assert found == pytest.approx(stats.ttest_1samp(logs, 0).pvalue, rel=1e-6)


def test_a_bootstrap_takes_the_normal_distribution_with_the_half_that_faces_the_border():
    skewed = Estimate(3.0, 1.0, 9.0, 500, "nats", "bootstrap")

    z = 3.0 / (2.0 / stats.norm.ppf(0.975))
    assert p_value(skewed, ABOVE) == pytest.approx(2 * stats.norm.sf(z))
    z = (10 - 3.0) / (6.0 / stats.norm.ppf(0.975))
    assert p_value(skewed, (-math.inf, 10.0)) == pytest.approx(2 * stats.norm.sf(z))


def test_similarity_must_be_told_from_both_borders():
    found = Estimate(0.5, 0.4, 0.6, 500, "share", "bootstrap")

    one, other = (p_value(found, side) for side in ((0.35, math.inf), (-math.inf, 0.8)))

    assert p_value(found, (0.35, 0.8)) == max(one, other) == one


def test_without_an_interval_there_is_no_p():
    assert math.isnan(p_value(Estimate(1.0, math.nan, math.nan, 1, "nats", ""), ABOVE))


def test_an_interval_of_no_width_is_on_one_side_for_sure():
    exact = Estimate(1.0, 1.0, 1.0, 3, "nats", "", freedom=2)

    assert p_value(exact, ABOVE) == 0
    assert p_value(exact, (1.0, math.inf)) == 1


@given(
    value=finite,
    down=st.floats(1e-3, 50),
    up=st.floats(1e-3, 50),
    edges=st.tuples(finite, finite).map(sorted),
    freedom=st.sampled_from([1, 2, 7, math.inf]),
)
def test_p_is_below_five_percent_exactly_where_the_verdict_is_decided(
    value, down, up, edges, freedom
):
    found = Estimate(value, value - down, value + up, 3, "nats", "", freedom)
    for inside in (tuple(edges), (edges[0], math.inf), (-math.inf, edges[1])):
        p = p_value(found, inside)
        assume(abs(p - 0.05) > 1e-6)

        assert (p < 0.05) == (verdict(found, inside) != "undecided")
