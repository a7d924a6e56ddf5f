"""Intervals: coverage on simulated data, and what happens where none can be given."""

import numpy as np
import pytest
from scipy import stats

from knnlm.evidence.intervals import (
    NO_INTERVAL,
    DocumentBootstrap,
    student_interval,
)
from knnlm.runtime.seeds import numpy_generator


def bootstrap(documents, samples=400, seed=0):
    return DocumentBootstrap(
        np.asarray(documents), samples=samples, generator=numpy_generator(seed, "bootstrap")
    )


def draw_text(generator, n_documents):
    """Documents of many sizes whose nll has a level of its own: tokens are not independent."""
    sizes = generator.integers(20, 120, size=n_documents)
    documents = np.repeat(np.arange(n_documents), sizes)
    level = generator.normal(3.0, 0.5, size=n_documents)  # independent of the size: mean is 3
    return documents, level[documents] + generator.normal(0, 1.0, size=len(documents))


def test_the_bootstrap_covers_the_truth_about_95_times_in_100():
    generator = numpy_generator(1, "coverage")

    covered = []
    for trial in range(300):
        documents, nll = draw_text(generator, n_documents=60)
        low, high = bootstrap(documents, seed=trial).ratio(nll)
        covered.append(low <= 3.0 <= high)

    assert 0.91 <= np.mean(covered) <= 0.98  # 0.95 -+ 3 standard errors of 300 trials


def test_resampling_documents_is_wider_than_the_spread_of_single_tokens_suggests():
    documents, nll = draw_text(numpy_generator(2, "width"), n_documents=60)

    low, high = bootstrap(documents).ratio(nll)

    assert high - low > 2 * 2 * 1.96 * nll.std() / np.sqrt(len(nll))


def test_a_ratio_is_the_sum_of_one_over_the_sum_of_the_other_in_each_resample():
    documents = np.repeat(np.arange(40), np.arange(1, 41))
    nll = numpy_generator(3, "ratio").random(len(documents))
    words = np.arange(len(documents)) % 3

    actual = bootstrap(documents, samples=100).ratio(nll, words)

    draws = numpy_generator(0, "bootstrap").multinomial(40, np.full(40, 1 / 40), size=100)
    ratios = [(nll * row[documents]).sum() / (words * row[documents]).sum() for row in draws]
    np.testing.assert_allclose(actual, np.percentile(ratios, [2.5, 97.5]), rtol=1e-12)


def test_a_function_of_means_is_taken_in_each_resample_of_all_of_them():
    documents = np.repeat(np.arange(40), np.arange(1, 41))
    one, other = numpy_generator(3, "means").random((2, len(documents)))

    actual = bootstrap(documents, samples=100).of_means(lambda a, b: np.exp(a) / b, one, other)

    draws = numpy_generator(0, "bootstrap").multinomial(40, np.full(40, 1 / 40), size=100)
    values = []
    for row in draws:
        weights = row[documents]
        means = [np.average(per_token, weights=weights) for per_token in (one, other)]
        values.append(np.exp(means[0]) / means[1])
    np.testing.assert_allclose(actual, np.percentile(values, [2.5, 97.5]), rtol=1e-12)


def test_a_difference_of_ratios_is_taken_within_each_resample():
    documents = np.repeat(np.arange(40), np.arange(1, 41))
    nll = numpy_generator(3, "classes").random(len(documents))
    rare = np.arange(len(documents)) % 3 == 0
    pairs = [(np.where(mask, nll, 0.0), mask) for mask in (rare, ~rare)]

    actual = bootstrap(documents, samples=100).difference_of_ratios(*pairs)

    draws = numpy_generator(0, "bootstrap").multinomial(40, np.full(40, 1 / 40), size=100)
    differences = [
        np.average(nll[rare], weights=row[documents][rare])
        - np.average(nll[~rare], weights=row[documents][~rare])
        for row in draws
    ]
    np.testing.assert_allclose(actual, np.percentile(differences, [2.5, 97.5]), rtol=1e-12)


def test_a_level_that_two_classes_share_leaves_their_difference():
    documents = np.repeat(np.arange(40), 4)
    level = numpy_generator(8, "level").normal(0, 5, 40)[documents]
    one = np.tile([True, False, True, False], 40)

    pairs = [(np.where(mask, level, 0.0), mask) for mask in (one, ~one)]
    low, high = bootstrap(documents).difference_of_ratios(*pairs)

    assert max(abs(low), abs(high)) < 1e-12


def test_a_difference_to_a_class_of_few_documents_has_no_interval():
    documents = np.repeat(np.arange(50), 2)
    few = (np.ones(100), np.where(documents < 29, 1, 0))
    many = (np.ones(100), np.ones(100))

    assert np.isnan(bootstrap(documents).difference_of_ratios(many, few)).all()
    assert np.isnan(bootstrap(documents).difference_of_ratios(few, many)).all()


def test_a_function_of_means_over_few_documents_has_no_interval():
    few = bootstrap(np.arange(29)).of_means(np.exp, np.ones(29))

    assert np.isnan(few).all()


def test_a_constant_difference_has_an_interval_of_no_width():
    documents = np.repeat(np.arange(30), 4)

    low, high = bootstrap(documents).ratio(np.full(120, -0.25))

    assert low == pytest.approx(-0.25, rel=1e-12)
    assert high == pytest.approx(-0.25, rel=1e-12)


def test_the_same_seed_gives_the_same_interval():
    documents, nll = draw_text(numpy_generator(4, "seed"), n_documents=40)

    assert bootstrap(documents, seed=7).ratio(nll) == bootstrap(documents, seed=7).ratio(nll)
    assert bootstrap(documents, seed=7).ratio(nll) != bootstrap(documents, seed=8).ratio(nll)


def test_document_numbers_may_have_gaps():
    dense, gaps = np.repeat(np.arange(30), 2), np.repeat(np.arange(30) * 1000 + 7, 2)
    nll = numpy_generator(5, "gaps").random(60)

    assert bootstrap(dense).ratio(nll) == bootstrap(gaps).ratio(nll)


@pytest.mark.parametrize(("n_documents", "given"), [(29, False), (30, True)])
def test_fewer_than_30_documents_have_no_interval(n_documents, given):
    documents = np.repeat(np.arange(n_documents), 2)
    nll = numpy_generator(6, "few").random(2 * n_documents)

    assert np.isfinite(bootstrap(documents).ratio(nll)).all() == given


def test_a_class_that_occurs_in_few_documents_has_no_interval():
    documents = np.repeat(np.arange(50), 2)
    in_class = np.where(documents < 29, 1, 0)
    nll = numpy_generator(7, "class").random(100)

    assert np.isnan(bootstrap(documents).ratio(nll * in_class, in_class)).all()


def test_a_bootstrap_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="got 0 tokens and 400 resamples"):
        bootstrap([])
    with pytest.raises(ValueError, match="got 2 tokens and 0 resamples"):
        bootstrap([0, 1], samples=0)


def test_values_of_another_text_are_an_error():
    with pytest.raises(ValueError, match="expected 60 values, one a token, got 59"):
        bootstrap(np.repeat(np.arange(30), 2)).ratio(np.zeros(59))


def test_the_t_interval_is_that_of_the_t_test():
    values = np.array([1.0, 2.5, 2.0, 4.0])

    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(student_interval(values), [expected.low, expected.high], rtol=1e-12)


def test_one_seed_has_no_interval():
    assert student_interval(np.array([1.0])) is NO_INTERVAL
