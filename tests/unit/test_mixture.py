"""The best weights of a mixture against a grid, a general optimizer and their certificate."""

import numpy as np
import pytest
from scipy import optimize

from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mixture import best_weights, mix_parts


def parts_of(n_parts, *, n=400, seed=0):
    return np.log(np.random.default_rng(seed).beta(0.5, 2.0, size=(n_parts, n)) + 1e-9)


def test_two_parts_get_the_weight_of_a_fine_grid():
    lm, other = parts_of(2)
    grid = np.linspace(0, 0.9999, 10_000)
    nll = [-mix_log_probs(lm, other, lmbda).mean() for lmbda in grid]

    weights = best_weights(np.stack([lm, other]))

    assert weights.sum() == pytest.approx(1)
    assert weights[1] == pytest.approx(grid[np.argmin(nll)], abs=2e-3)
    mixed = -mix_parts(np.stack([lm, other]), weights).mean()
    assert mixed == pytest.approx(min(nll), abs=1e-6)


def test_no_optimizer_finds_better_weights_of_four_parts():
    parts = parts_of(4, seed=1)

    def nll(raw):
        weights = np.exp(raw - raw.max())
        return -mix_parts(parts, weights / weights.sum()).mean()

    found = optimize.minimize(nll, np.zeros(4), method="Nelder-Mead", options={"maxiter": 4000})

    assert nll(np.log(best_weights(parts))) <= found.fun + 1e-6


def test_a_part_that_is_worse_everywhere_gets_next_to_nothing():
    (lm,) = parts_of(1)

    weights = best_weights(np.stack([lm, lm - 2.0]))

    assert weights[1] < 1e-4


def test_what_a_part_does_not_say_is_left_to_the_first():
    parts = parts_of(3)
    parts[1, :100], parts[2, 50:150] = np.nan, -np.inf

    mixed = mix_parts(parts, np.array([0.5, 0.3, 0.2]))

    probs = np.exp(parts)
    expected = 0.5 * probs[0] + 0.3 * np.where(np.isnan(probs[1]), probs[0], probs[1])
    assert np.exp(mixed) == pytest.approx(expected + 0.2 * probs[2], rel=1e-12)
    assert np.isfinite(best_weights(parts)).all()


def test_a_first_part_that_says_nothing_is_an_error():
    parts = parts_of(2)
    parts[0, 3] = -np.inf

    with pytest.raises(ValueError, match="expected finite log-probabilities of the first part"):
        best_weights(parts)
