"""Tests of the kNN distribution over all tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from knnlm.retrieval.distribution import knn_distribution, knn_weights
from knnlm.retrieval.interpolation import knn_log_probs


@given(st.data())
def test_probabilities_of_equal_values_add_up(data):
    k = data.draw(st.integers(1, 8))
    values = data.draw(st.lists(st.integers(0, 4), min_size=k, max_size=k))
    distances = data.draw(st.lists(st.floats(0, 50, width=32), min_size=k, max_size=k))

    merged, probabilities = knn_distribution(
        torch.tensor([distances]), torch.tensor([values]), temperature=3.0
    )

    expected = np.bincount(values, weights=softmax(-np.array(distances) / 3.0), minlength=5)
    actual = np.zeros(5)
    np.add.at(actual, merged[0].numpy(), probabilities[0].numpy())
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    assert merged.shape[1] == len(set(values))


def test_the_distribution_is_that_of_the_log_probabilities():
    rng = np.random.default_rng(0)
    distances = np.sort(rng.random((20, 30), dtype=np.float32) * 9, axis=1)
    values = rng.integers(0, 12, (20, 30)).astype(np.int32)
    distances[3, 7:], values[3, 7:] = np.inf, -1
    over_all = torch.zeros(20, 12, dtype=torch.float64)

    merged = knn_distribution(*map(torch.from_numpy, (distances, values)), temperature=0.7)

    over_all.scatter_add_(1, *merged)
    for token in range(12):
        targets = np.full(20, token, np.int32)
        expected = np.exp(knn_log_probs(distances, values, targets, temperature=0.7))
        np.testing.assert_allclose(over_all[:, token], expected, rtol=1e-12)


def test_a_missing_neighbor_never_counts():
    distances = torch.tensor([[1.0, 2.0, torch.inf, 0.5], [1.0, torch.inf, torch.inf, torch.inf]])
    values = torch.tensor([[7, 8, 7, -1], [3, -1, 5, 6]])

    merged, probabilities = knn_distribution(distances, values, temperature=1.0)

    weight = 1 / (1 + np.exp(-1.0))
    assert merged[0].tolist() == [7, 8]
    np.testing.assert_allclose(probabilities[0], [weight, 1 - weight], rtol=1e-12)
    assert (merged[1, 0], probabilities[1, 0], probabilities[1, 1]) == (3, 1, 0)
    assert knn_weights(distances, values, temperature=1.0)[:, 2:].sum() == 0


@pytest.mark.parametrize(
    ("distances", "values", "temperature", "message"),
    [
        ([[1.0]], [[1]], 0.0, "temperature must be above 0"),
        ([[1.0, 2.0]], [[1]], 1.0, "expected distances"),
        ([[float("nan")]], [[1]], 1.0, "got nan"),
        ([[1.0], [torch.inf]], [[1], [1]], 1.0, "none for 1 of 2"),
        ([[1.0], [1.0]], [[1], [-1]], 1.0, "none for 1 of 2"),
    ],
)
def test_neighbors_that_make_no_distribution_are_refused(distances, values, temperature, message):
    with pytest.raises(ValueError, match=message):
        knn_distribution(torch.tensor(distances), torch.tensor(values), temperature=temperature)
