"""Numbers with intervals, against what is computed by hand."""

import numpy as np
import pandas as pd
import pytest

from knnlm.evidence.estimates import difference, ratio, sample
from knnlm.evidence.tables import tidy

T = 4.302652729911275  # 97.5 % of Student's t with 2 degrees of freedom, from a table


def rows(values, *, low=None, high=None, seeds=("0", "1", "2"), **names):
    """Return a table of one number, a row a seed."""
    return tidy(
        {"experiment": "e", "metric": "m", "n": 40, "unit": "nats", "seed": seed}
        | {"value": value, "ci_low": low, "ci_high": high}
        | names
        for seed, value in zip(seeds, values, strict=False)
    )


def test_several_seeds_have_students_interval_of_their_mean():
    found = sample(rows([1.0, 2.0, 3.0])).summary

    assert found.value == 2
    assert (found.low, found.high) == pytest.approx((2 - T / 3**0.5, 2 + T / 3**0.5))
    assert found.n == 3
    assert "3 seeds" in found.how


def test_the_mean_that_a_table_has_is_taken_as_it_is():
    table = pd.concat([rows([1.0, 8.0]), rows([3.0], low=2.0, high=4.0, seeds=["all"], n=2)])

    found = sample(table).summary

    assert (found.value, found.low, found.high, found.n) == (3, 2, 4, 2)
    assert found.freedom == 1


def test_one_seed_has_the_interval_of_its_row():
    found = sample(rows([1.0], low=0.5, high=2.0)).summary

    assert (found.value, found.low, found.high, found.n) == (1, 0.5, 2.0, 40)


def test_one_seed_without_an_interval_says_so():
    found = sample(rows([1.0])).summary

    assert np.isnan([found.low, found.high]).all()
    assert found.how == "no interval: it rests on one seed, or on too few documents"


def test_a_difference_is_taken_within_each_seed():
    # means 12 and 10; the seeds differ by 9, the pairs hardly
    one, other = sample(rows([3.0, 12.0, 21.0])), sample(rows([2.0, 10.0, 18.0]))

    found = difference(one, other)

    assert found.value == 2
    assert (found.low, found.high) == pytest.approx((2 - T / 3**0.5, 2 + T / 3**0.5))
    assert "3 paired seeds" in found.how


def test_pairs_are_matched_by_seed_and_not_by_order():
    one, other = sample(rows([3.0, 5.0])), sample(rows([4.0, 2.0], seeds=["1", "0"]))

    found = difference(one, other)

    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_a_difference_is_that_of_the_seeds_also_where_the_table_has_their_mean():
    mean = rows([2.0], low=-0.5, high=4.5, seeds=["all"], n=3)
    one = sample(pd.concat([rows([1.0, 2.0, 3.0]), mean]))
    other = sample(pd.concat([rows([0.0, 1.0, 2.0]), mean]))

    found = difference(one, other)

    assert (found.value, found.low, found.high, found.n) == (1, 1, 1, 3)


def test_a_ratio_is_paired_in_the_logarithm():
    one, other = sample(rows([2.0, 4.0, 8.0])), sample(rows([1.0, 1.0, 1.0]))
    half = T * np.log(2) / 3**0.5

    found = ratio(one, other)

    assert found.value == pytest.approx(4)
    assert (found.low, found.high) == pytest.approx((4 * np.exp(-half), 4 * np.exp(half)))
    assert found.unit == "ratio"


def test_two_rows_of_one_seed_that_are_not_paired_get_the_ends_furthest_apart():
    one = sample(rows([5.0], low=4.0, high=7.0))
    other = sample(rows([2.0], low=1.0, high=2.5))

    apart, quotient = difference(one, other), ratio(one, other)

    assert (apart.value, apart.low, apart.high) == (3, 1.5, 6)
    assert (quotient.value, quotient.low, quotient.high) == pytest.approx((2.5, 1.6, 7))
    assert "not paired" in apart.how


def test_seeds_that_are_no_pairs_have_the_degrees_of_freedom_of_the_fewer():
    found = difference(sample(rows([1.0, 2.0, 4.0])), sample(rows([1.0, 2.0], seeds=["8", "9"])))

    assert found.freedom == 1


def test_a_level_that_belongs_to_no_seed_has_no_error():
    level = sample(rows([1.0], seeds=[""]))

    found = difference(sample(rows([5.0], low=4.0, high=7.0)), level)

    assert (found.value, found.low, found.high) == (4, 3, 6)
    assert "not paired" not in found.how


def test_rows_of_more_than_one_number_are_an_error_that_says_what_to_choose():
    table = pd.concat([rows([1.0], method="lm"), rows([2.0], method="knn_lm")])

    with pytest.raises(ValueError, match="method: lm, knn_lm"):
        sample(table)


def test_a_ratio_of_a_number_that_is_not_above_zero_is_an_error():
    with pytest.raises(ValueError, match="above 0"):
        ratio(sample(rows([1.0, -1.0])), sample(rows([1.0, 1.0])))
