"""The continuous cache against its definition, token by token, and numbers found by hand."""

import math

import numpy as np
import pytest

from knnlm.retrieval import cache
from knnlm.retrieval.cache import cache_log_probs, mean_squared_norm, tune_cache
from knnlm.retrieval.mixture import best_weights, mix_parts

THETAS, SIZES = [0.0, 0.4, 3.0], [7, 1, 30, 3]


def documents_of(lengths, *, dim=6, vocabulary=5, seed=0):
    """Return states, targets and documents of random text."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    hidden = rng.normal(size=(n, dim)).astype(np.float32)
    return hidden, rng.integers(0, vocabulary, size=n), np.repeat(np.arange(len(lengths)), lengths)


def by_definition(hidden, targets, documents, row, *, theta, size, token):
    """Return p_cache of a token at a row: Grave et al. (2017), Eq. 3."""
    past = [i for i in range(max(0, row - size), row) if documents[i] == documents[row]]
    weights = {i: math.exp(theta * float(hidden[row] @ hidden[i])) for i in past}
    if not past:
        return math.nan
    return sum(w for i, w in weights.items() if targets[i] == token) / sum(weights.values())


def test_it_is_the_definition_for_every_theta_and_size(monkeypatch):
    monkeypatch.setattr(cache, "ROWS_AT_A_TIME", 8)  # so that documents are cut
    hidden, targets, documents = documents_of([20, 1, 13, 40])
    rows = np.array([0, 1, 2, 18, 19, 20, 21, 25, 30, 33, 34, *range(50, 74)])

    found = cache_log_probs(hidden, targets, documents, rows, thetas=THETAS, sizes=SIZES)

    assert found.shape == (len(THETAS), len(SIZES), len(rows))
    for t, theta in enumerate(THETAS):
        for s, size in enumerate(SIZES):
            for place, row in enumerate(rows):
                expected = by_definition(
                    hidden, targets, documents, row, theta=theta, size=size, token=targets[row]
                )
                probability = np.exp(found[t, s, place])
                assert probability == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_it_is_what_a_hand_finds():
    hidden = np.array([[1, 0], [0, 1], [2, 0], [1, 1]], np.float32)
    targets, documents = np.array([5, 6, 5, 5]), np.zeros(4, int)

    (probabilities,) = np.exp(
        cache_log_probs(hidden, targets, documents, np.array([3]), thetas=[0.5], sizes=[2, 3])
    )[:, :, 0]

    # products of (1, 1) with the past, latest first: 2, 1, 1; 5 stood after the first and the third
    two, three = (math.exp(1), math.exp(0.5)), (math.exp(1), math.exp(0.5), math.exp(0.5))
    assert probabilities == pytest.approx([two[0] / sum(two), (three[0] + three[2]) / sum(three)])


def test_it_sums_to_one_over_the_vocabulary():
    hidden, targets, documents = documents_of([30], vocabulary=4)
    rows, total = np.array([9, 29]), 0
    for token in range(4):
        asked = targets.copy()
        asked[rows] = token
        past = np.delete(np.arange(30), rows)
        assert (asked[past] == targets[past]).all()
        total += np.exp(
            cache_log_probs(hidden, asked, documents, rows, thetas=[1.0], sizes=[8])[0, 0]
        )

    assert total == pytest.approx([1, 1])


def test_large_scores_beyond_a_small_cache_do_not_make_it_underflow():
    hidden = np.array([[60], [1], [1], [30]], np.float32)
    targets, documents = np.array([1, 2, 2, 2]), np.zeros(4, int)

    found = cache_log_probs(hidden, targets, documents, np.array([3]), thetas=[1.0], sizes=[2, 3])

    assert found[0, 0, 0] == 0.0  # two of two stood before 2
    assert found[0, 1, 0] == pytest.approx(math.log(2) + 30 - 1800)  # exp(30) twice, exp(1800)


def test_the_unit_of_theta_is_the_mean_squared_norm():
    assert mean_squared_norm(np.array([[3, 4], [0, 1]], np.float32)) == 13


@pytest.mark.parametrize(
    "settings", [{"thetas": [-1], "sizes": [3]}, {"thetas": [1], "sizes": [0]}]
)
def test_settings_out_of_their_range_are_errors(settings):
    with pytest.raises(ValueError, match="expected thetas of at least 0 and sizes of at least 1"):
        cache_log_probs(*documents_of([4]), np.array([2]), **settings)


def test_tuning_finds_the_best_theta_size_and_weights():
    rows = np.arange(90)
    hidden, targets, documents = documents_of([40, 50])
    lm = np.log(np.random.default_rng(1).uniform(0.05, 0.3, size=(1, 90)))
    every = cache_log_probs(hidden, targets, documents, rows, thetas=THETAS, sizes=SIZES)

    tuning = tune_cache(lm, every)

    nlls = {}
    for place in np.ndindex(len(THETAS), len(SIZES)):
        parts = np.vstack([lm, every[place]])
        nlls[place] = -mix_parts(parts, best_weights(parts)).mean()
    assert tuning.best == min(nlls, key=nlls.get)
    assert tuning.nll[tuning.best] == pytest.approx(min(nlls.values()), abs=1e-12)
    assert tuning.nll[tuning.best] < -lm.mean()
    assert tuning.weights.sum(axis=-1) == pytest.approx(np.ones((len(THETAS), len(SIZES))))
