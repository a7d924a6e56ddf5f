"""Each distribution in the place of kNN's is its definition, and is tuned as brute force would."""

import numpy as np
import pytest
import torch

from knnlm.experiments.ruled_out.clustered import (
    clustered_log_probs,
    require_entries,
    shares_of_values,
)
from knnlm.experiments.ruled_out.component import (
    Component,
    Cost,
    Mixture,
    best_mixture,
    mixed_nll,
    read_component,
    save_component,
)
from knnlm.experiments.ruled_out.output_distances import retrieved_log_probs
from knnlm.experiments.ruled_out.sparsified import masked_log_probs
from knnlm.experiments.ruled_out.subject import squared_distances_to
from knnlm.retrieval.interpolation import knn_log_probs

LMBDAS = np.array([0.1, 0.5, 0.9])


def component_of(log_probs, *, option="temperature"):
    log_probs = np.asarray(log_probs, dtype=np.float64)
    splits = {"validation": log_probs, "test": log_probs[:, ::-1]}
    values = np.arange(len(log_probs), dtype=np.float64)
    return Component("method", "variant", option, values, splits, Cost(3.0, 4.0))


def test_a_mask_leaves_the_likeliest_tokens_and_makes_them_sum_to_one():
    probs = np.array([0.4, 0.3, 0.2, 0.1])
    logits = torch.from_numpy(np.tile(np.log(probs) + 3, (4, 1)))

    found = masked_log_probs(logits, torch.arange(4), [1, 3, 4]).numpy()

    left = np.array([0.4, 0.3, 0.2]) / 0.9
    expected = [[1, 0, 0, 0], [*left, 0], probs]
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-12)


def test_of_equally_likely_tokens_the_first_is_left():
    logits = torch.zeros(3, 3)

    found = masked_log_probs(logits, torch.arange(3), [1, 2]).numpy()

    np.testing.assert_allclose(np.exp(found), [[1, 0, 0], [0.5, 0.5, 0]], atol=1e-12)


def test_a_cluster_has_the_shares_of_its_values():
    clusters, values = np.array([0, 0, 0, 2, 2]), np.array([5, 5, 1, 1, 1])

    shares = shares_of_values(clusters, values, (6, 3)).toarray()

    expected = np.zeros((6, 3))
    expected[5, 0], expected[1, 0], expected[1, 2] = 2 / 3, 1 / 3, 1
    np.testing.assert_allclose(shares, expected)


def test_with_a_cluster_for_each_entry_the_clustered_datastore_is_the_whole_one():
    generator = np.random.default_rng(0)
    keys, queries = (generator.normal(size=(n, 4)).astype(np.float32) for n in (30, 9))
    values, targets = generator.integers(0, 5, 30), generator.integers(0, 5, 9)
    shares = shares_of_values(np.arange(30), values, (5, 30))

    distances = squared_distances_to(torch.from_numpy(keys).double(), queries)
    found = clustered_log_probs(distances, shares[targets].toarray(), 1.5)

    direct = ((queries[:, None] - keys) ** 2).sum(axis=2)
    tiled = np.tile(values, (9, 1))
    expected = knn_log_probs(direct, tiled, targets, temperature=1.5)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_more_clusters_than_entries_are_refused():
    require_entries(100, 100)

    with pytest.raises(ValueError, match=r"clusters: expected at most .* 100, got 101; take fewer"):
        require_entries(101, 100)


def test_retrieved_tokens_share_all_probability_by_the_distance_of_their_output_vectors():
    distances = torch.tensor([[1.0, 4.0, 2.0, 0.0]] * 3).double()
    retrieved = torch.tensor([[True, True, False, False]] * 2 + [[False] * 4])

    found = retrieved_log_probs(distances, retrieved, torch.tensor([0, 2, 0]), 2.0).numpy()

    weights = np.exp([-0.5, -2.0])
    assert found[0] == pytest.approx(np.log(weights[0] / weights.sum()))
    assert found[1] == -np.inf  # it was not retrieved
    assert np.isnan(found[2])  # nothing was: the LM alone counts


def test_the_best_mixture_is_the_one_that_brute_force_finds():
    generator = np.random.default_rng(0)
    component = component_of(np.log(generator.uniform(0.01, 1, size=(3, 40))))
    lm_nll = -np.log(generator.uniform(0.01, 1, size=40))

    found = best_mixture(component, "validation", lm_nll, LMBDAS)

    lm, probs = np.exp(-lm_nll), np.exp(component.log_probs["validation"])
    means = {
        (place, lmbda): -np.log((1 - lmbda) * lm + lmbda * probs[place]).mean()
        for place in range(3)
        for lmbda in LMBDAS
    }
    assert found == min(means, key=means.get)
    nll = mixed_nll(component, "validation", lm_nll, found)
    assert nll.mean() == pytest.approx(min(means.values()))


def test_a_target_without_probability_leaves_the_lm_its_share():
    component = component_of([[-np.inf, 0.0]])

    nll = mixed_nll(component, "validation", np.array([1.0, 1.0]), Mixture(0, 0.25))

    expected = [1 - np.log(0.75), -np.log(0.75 * np.exp(-1) + 0.25)]
    np.testing.assert_allclose(nll, expected)


def test_what_was_written_is_read_to_the_bit(tmp_path):
    component = component_of([[-np.inf, -0.5], [-1.0, -2.0]])

    save_component(tmp_path / "one.npz", component)
    found = read_component(tmp_path / "one.npz")

    for name in ("method", "variant", "option", "cost"):
        assert getattr(found, name) == getattr(component, name)
    np.testing.assert_array_equal(found.values, component.values)
    for split, array in component.log_probs.items():
        np.testing.assert_array_equal(found.log_probs[split], array)
