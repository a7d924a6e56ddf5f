"""p_kNN, the mixture and the sweep follow their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, logsumexp

from knnlm.retrieval.interpolation import (
    knn_log_probs,
    knn_probs,
    mean_distance,
    mean_nll,
    mix_log_probs,
    sweep,
)

DISTANCES = np.array([[0.0, 1.0, 4.0]], dtype=np.float32)
VALUES = np.array([[7, 3, 7]], dtype=np.int32)
DISTANCE = st.floats(0, 2.0**20, width=32)


def target(token):
    return np.array([token], dtype=np.int32)


def random_neighbors(*, n_queries=300, k=16, n_values=5, seed=0):
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.gamma(4.0, 5.0, (n_queries, k)), axis=1).astype(np.float32)
    values = rng.integers(0, n_values, (n_queries, k), dtype=np.int32)
    targets = rng.integers(0, n_values, n_queries, dtype=np.int32)
    return distances, values, targets, -rng.gamma(2.0, 2.0, n_queries)


def test_neighbors_that_share_a_value_add_up():
    weights = np.exp([-0.0, -0.5, -2.0])  # exp(-distance / temperature)

    actual = knn_log_probs(DISTANCES, VALUES, target(7), temperature=2.0)

    expected = np.log((weights[0] + weights[2]) / weights.sum())
    np.testing.assert_allclose(actual, [expected], rtol=1e-14)


def test_knn_log_probs_are_scipy_log_softmax_summed_over_equal_values():
    distances, values, targets, _ = random_neighbors()
    scores = log_softmax(-distances.astype(np.float64) / 3.0, axis=1)
    hits = np.where(values == targets[:, None], scores, -np.inf)

    actual = knn_log_probs(distances, values, targets, temperature=3.0)

    np.testing.assert_allclose(actual, logsumexp(hits, axis=1), rtol=1e-12)


def test_a_target_that_no_neighbor_has_gets_log_zero():
    assert knn_log_probs(DISTANCES, VALUES, target(9), temperature=1.0)[0] == -np.inf


def test_a_far_target_keeps_its_log_probability_where_its_probability_underflows():
    distances = np.array([[0.0, 2000.0]], dtype=np.float32)

    actual = knn_log_probs(distances, np.array([[1, 2]]), target(2), temperature=1.0)

    np.testing.assert_allclose(actual, [-2000.0], rtol=1e-14)


def test_missing_neighbors_weigh_nothing():
    distances = np.concatenate([DISTANCES, [[np.inf, np.inf]]], axis=1).astype(np.float32)
    values = np.concatenate([VALUES, [[-1, -1]]], axis=1)

    for token in (7, 3, 9):
        np.testing.assert_array_equal(
            knn_log_probs(distances, values, target(token), temperature=2.0),
            knn_log_probs(DISTANCES, VALUES, target(token), temperature=2.0),
        )
    assert knn_log_probs(distances, values, target(-1), temperature=2.0)[0] == -np.inf


@given(
    distances=arrays(np.float32, (1, 6), elements=DISTANCE),
    values=arrays(np.int32, (1, 6), elements=st.integers(0, 3)),
    temperature=st.floats(0.1, 1e4),
)
def test_p_knn_sums_to_one_over_the_values(distances, values, temperature):
    tokens = np.unique(values)

    log_probs = [
        knn_log_probs(distances, values, target(t), temperature=temperature) for t in tokens
    ]

    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-9)


@given(
    distances=arrays(np.int32, (1, 6), elements=st.integers(0, 2**20)),
    values=arrays(np.int32, (1, 6), elements=st.integers(0, 3)),
    shift=st.integers(0, 2**20),
)
def test_p_knn_does_not_change_when_all_distances_grow_alike(distances, values, shift):
    near, far = distances.astype(np.float32), (distances + shift).astype(np.float32)

    actual = knn_log_probs(far, values, target(1), temperature=1024.0)

    expected = knn_log_probs(near, values, target(1), temperature=1024.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@given(
    distances=arrays(np.float32, (1, 6), elements=st.floats(0, 100, width=32)),
    values=arrays(np.int32, (1, 6), elements=st.integers(0, 3)),
)
def test_merging_another_value_into_the_target_never_lowers_its_probability(distances, values):
    before = knn_log_probs(distances, values, target(1), temperature=5.0)

    merged = knn_log_probs(distances, np.where(values == 2, 1, values), target(1), temperature=5.0)

    assert merged[0] >= before[0]


def test_the_mixture_weighs_knn_by_lmbda():
    actual = mix_log_probs(np.log([0.5]), np.log([0.1]), 0.25)

    np.testing.assert_allclose(actual, np.log([0.75 * 0.5 + 0.25 * 0.1]), rtol=1e-14)


@pytest.mark.parametrize("knn", [-np.inf, -3.0, np.nan])
def test_lmbda_zero_returns_the_lm_bit_for_bit(knn):
    lm = np.array([-1.2345678901234567, -800.0, -np.pi])

    np.testing.assert_array_equal(mix_log_probs(lm, np.full(3, knn), 0.0), lm)


def test_a_target_without_neighbors_leaves_the_share_of_the_lm():
    actual = mix_log_probs(np.array([-800.0]), np.array([-np.inf]), 0.25)

    np.testing.assert_allclose(actual, [-800.0 + np.log(0.75)], rtol=1e-15)


def test_lmbda_may_differ_from_query_to_query():
    actual = mix_log_probs(np.log([0.5, 0.5]), np.log([0.1, 0.1]), np.array([0.0, 0.5]))

    np.testing.assert_allclose(np.exp(actual), [0.5, 0.3], rtol=1e-14)


def test_a_query_without_any_neighbor_falls_back_to_the_lm():
    distances = np.full((1, 3), np.inf, dtype=np.float32)
    values = np.full((1, 3), -1, dtype=np.int32)
    lm = np.array([-2.5])

    knn = knn_log_probs(distances, values, target(7), temperature=1.0)
    swept = sweep(
        distances, values, target(7), lm, ks=[1, 3], temperatures=[1.0], lmbdas=[0.0, 0.3]
    )

    assert np.isnan(knn[0])
    assert mix_log_probs(lm, knn, 0.25)[0] == lm[0]
    np.testing.assert_allclose(swept, 2.5, rtol=1e-14)


def test_the_sweep_is_the_mean_of_the_mixture_of_the_first_k():
    distances, values, targets, lm = random_neighbors()
    distances[5, 9:], values[5, 9:] = np.inf, -1  # some missing
    distances[6], values[6] = np.inf, -1  # all missing
    ks, temperatures, lmbdas = [16, 1, 5], [0.3, 4.0, 90.0], [0.0, 1e-6, 0.01, 0.25, 0.5, 0.99]

    actual = sweep(distances, values, targets, lm, ks=ks, temperatures=temperatures, lmbdas=lmbdas)

    for i, k in enumerate(ks):
        for j, temperature in enumerate(temperatures):
            knn = knn_log_probs(distances[:, :k], values[:, :k], targets, temperature=temperature)
            expected = [-np.mean(mix_log_probs(lm, knn, lmbda)) for lmbda in lmbdas]
            np.testing.assert_allclose(actual[i, j], expected, rtol=1e-12)


def test_the_sweep_does_not_underflow_far_from_every_key():
    settings = {"ks": [1, 3], "temperatures": [1.0], "lmbdas": [0.25]}
    lm = np.array([-1.0])

    far = sweep(DISTANCES + np.float32(65_536), VALUES, target(7), lm, **settings)

    near = sweep(DISTANCES, VALUES, target(7), lm, **settings)
    np.testing.assert_allclose(far, near, rtol=1e-14)


def test_the_sweep_survives_an_lm_that_is_sure_of_something_else():
    lm = np.array([-2000.0])
    settings = {"ks": [3], "temperatures": [2.0], "lmbdas": [0.25]}

    hit = sweep(DISTANCES, VALUES, target(7), lm, **settings)[0, 0, 0]
    miss = sweep(DISTANCES, VALUES, target(9), lm, **settings)[0, 0, 0]

    knn = knn_log_probs(DISTANCES, VALUES, target(7), temperature=2.0)[0]
    np.testing.assert_allclose(hit, -(np.log(0.25) + knn), rtol=1e-14)
    np.testing.assert_allclose(miss, 2000.0 - np.log(0.75), rtol=1e-14)


@settings(deadline=None)
@given(
    lmbda=st.floats(0, 1, exclude_max=True),
    n_queries=st.integers(1, 600),
    seed=st.integers(0, 2**16),
)
def test_products_of_mixtures_never_underflow(lmbda, n_queries, seed):
    distances, values, targets, lm = random_neighbors(n_queries=n_queries, k=2, seed=seed)
    knn = knn_log_probs(distances, values, targets, temperature=2.0)

    actual = sweep(distances, values, targets, lm, ks=[2], temperatures=[2.0], lmbdas=[lmbda])[
        0, 0, 0
    ]

    expected = -np.mean(mix_log_probs(lm, knn, lmbda))
    rounding = np.finfo(np.float64).eps / (1 - lmbda)  # of 1 - lmbda, beside numbers of size 1
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=2 * rounding)


def test_mean_distance_averages_found_neighbors_within_a_query_first():
    distances = np.array([[1, 3, np.inf], [10, 10, 10], [np.inf] * 3], dtype=np.float32)

    assert mean_distance(distances) == (2 + 10) / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures": [1.0, 0.0]}, r"temperature must be above 0"),
        ({"lmbdas": [0.5, 1.0]}, r"lmbda must be in \[0, 1\), got 1.0"),
        ({"lmbdas": [-0.1]}, r"lmbda must be in \[0, 1\), got -0.1"),
        ({"ks": [4]}, r"each k must be from 1 to 3, .* got \[4\]"),
        ({"ks": [0]}, r"each k must be from 1 to 3"),
        ({"values": VALUES[:, :2]}, r"got \(1, 3\), \(1, 2\) and \(1,\)"),
        ({"distances": DISTANCES[:, ::-1]}, r"distances must ascend"),
        ({"distances": -DISTANCES}, r"squared distances must be at least 0"),
        ({"distances": DISTANCES * np.nan}, r"squared distances must be at least 0"),
        ({"lm_log_probs": np.array([-np.inf])}, r"expected 1 finite lm_log_probs"),
    ],
)
def test_bad_input_is_refused_with_the_reason(change, message):
    given = {
        "distances": DISTANCES,
        "values": VALUES,
        "targets": target(7),
        "lm_log_probs": np.array([-1.0]),
        "ks": [1],
        "temperatures": [1.0],
        "lmbdas": [0.5],
    }

    with pytest.raises(ValueError, match=message):
        sweep(**{**given, **change})


def test_no_neighbors_at_all_have_no_mean_distance():
    with pytest.raises(ValueError, match="raise n_probes"):
        mean_distance(np.full((2, 3), np.inf, dtype=np.float32))


def test_many_temperatures_at_once_give_what_each_gives_alone():
    distances, values, targets, lm = random_neighbors()
    distances[5], values[5] = np.inf, -1  # a query with no neighbor at all
    temperatures, lmbdas = [0.3, 2.0, 40.0], [0.0, 0.2, 0.9]

    probs = knn_probs(distances, values == targets[:, None], temperatures=temperatures)

    for place, temperature in enumerate(temperatures):
        alone = knn_log_probs(distances, values, targets, temperature=temperature)
        np.testing.assert_allclose(probs[place], np.exp(alone), rtol=1e-12)
    expected = sweep(
        distances, values, targets, lm, ks=[16], temperatures=temperatures, lmbdas=lmbdas
    )
    np.testing.assert_allclose(mean_nll(lm, probs, lmbdas), expected[0], rtol=1e-12)
