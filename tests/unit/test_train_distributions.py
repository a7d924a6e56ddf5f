"""p_kNN of train is brute force over all other entries."""

import numpy as np
import pytest
import torch
from retrieval_artifacts import (
    datastore_of,
    files_of,
    make_datastore,
    nearest_by_definition,
    write_inputs,
)
from scored_run_artifacts import write_point

from knnlm.lm.objectives import TrainDistributions
from knnlm.lm.windows import ShuffledWindows
from knnlm.retrieval import train_distributions as module
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.train_distributions import (
    KEPT,
    distributions_of,
    find_train_distributions,
    positions_of,
    without_itself,
)
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import ArtifactError
from knnlm.runtime.making import Target

SEARCH = {"block_queries": 64, "keys_mib": 1, "scores_mib": 1}
WINDOWS = [(8, 30), (5, 4)]  # context, and how many are read
POINT = Point(k=20, temperature=2.0, lmbda=0.4)


def by_definition(keys, values, place, point, vocabulary):
    """Return p_kNN (V,) of one entry, from all entries but itself."""
    others = np.delete(np.arange(len(keys)), place)
    ids, distances = nearest_by_definition(keys[place][None], keys[others], point.k)
    weights = np.exp(-distances[0] / point.temperature)
    summed = np.bincount(values[others[ids[0]]], weights=weights, minlength=vocabulary)
    return summed / summed.sum()


def test_each_entry_asks_all_others():
    generator = np.random.default_rng(0)
    keys = generator.standard_normal((150, 4)).astype(np.float16)
    values = generator.integers(0, 60, 150).astype(np.uint16)
    store = datastore_of(keys, values)

    found = distributions_of(store, np.arange(30, 110), POINT, SEARCH)

    assert found["values"].shape == (80, KEPT)
    for row, place in enumerate(range(30, 110)):
        expected = by_definition(keys, values, place, POINT, 60)
        dense = np.zeros(60)
        np.add.at(dense, found["values"][row], found["probabilities"][row])
        np.testing.assert_allclose(dense, expected, rtol=1e-4, atol=1e-7)
        own = found["target_probabilities"][row]
        np.testing.assert_allclose(own, expected[values[place]], rtol=1e-4, atol=1e-12)


def test_only_the_likeliest_tokens_are_kept(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    generator = np.random.default_rng(0)
    keys = generator.standard_normal((90, 4)).astype(np.float16)
    values = generator.integers(0, 30, 90).astype(np.uint16)

    found = distributions_of(datastore_of(keys, values), np.arange(90), POINT, SEARCH)

    for place in range(90):
        expected = by_definition(keys, values, place, POINT, 30)
        highest = np.sort(expected)[::-1][:3]
        np.testing.assert_allclose(found["probabilities"][place], highest, rtol=1e-4)


def test_an_entry_with_many_copies_is_still_left_out():
    ids = np.array([[4, 7, 9], [0, 1, 2]])
    distances = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], np.float32)

    left, far = without_itself(np.array([7, 5]), ids, distances)

    assert left.tolist() == [[4, 9], [0, 1]]
    assert far.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_the_positions_that_ask_are_those_of_the_windows_that_are_read():
    read = set()
    for context, count in WINDOWS:
        starts = ShuffledWindows(303, context=context, seed=3).starts(0, count)
        read |= {int(start) + i for start in starts for i in range(context)}

    found = positions_of(WINDOWS, n_tokens=303, seed=3)

    assert found.tolist() == sorted(read)
    assert len(found) < 303


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("own_train")
    lm = write_inputs(root)
    stores = {}
    for name, share in {"base": 1.0, "half": 0.5}.items():
        stores[name] = root / "datastores" / name / "seed0"
        options = {"stride": 4, "dtype": "float16", "shard_mib": 1, "share": share}
        make_datastore(stores[name], site="ffn_input_after_layer_norm", **options, **lm)
    place = root / "tuned" / "base" / "seed0.json"
    tuned = write_point(place, POINT, datastore="base", seed="0")
    return {"stores": stores, "tuned": tuned}


def find(inputs, output, store="base", **changed):
    target = Target(output, "f", {"datastore": store, "seed": "0"})
    given = {"datastore": inputs["stores"][store], "tuned": inputs["tuned"], **changed}
    find_train_distributions(target, search=SEARCH, windows=WINDOWS, **given)
    return output


def test_a_search_that_dies_goes_on_to_the_same_bytes(inputs, tmp_path, monkeypatch):
    whole, real, asked = find(inputs, tmp_path / "whole"), module.distributions_of, []

    def dying(store, own, *others):
        asked.append(int(own[0]))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(store, own, *others)

    monkeypatch.setattr(module, "distributions_of", dying)
    with pytest.raises(KeyboardInterrupt):
        find(inputs, tmp_path / "killed")

    killed = find(inputs, tmp_path / "killed")

    positions = positions_of(WINDOWS, n_tokens=303, seed=0)
    assert sorted(set(asked)) == positions[::64].tolist()
    assert len(asked) == len(positions[::64]) + 1, "a block was searched again"
    assert files_of(killed) == files_of(whole)
    found = TrainDistributions.load(killed)
    assert np.array_equal(found.positions, positions)
    in_one = real(open_datastore(inputs["stores"]["base"]), positions, POINT, SEARCH)
    np.testing.assert_allclose(found.probabilities, in_one["probabilities"], rtol=1e-6)
    assert torch.from_numpy(np.array(found.probabilities)).sum(1).max() < 1 + 1e-6


def test_a_datastore_without_all_positions_is_an_error(inputs, tmp_path):
    with pytest.raises(ArtifactError, match=r"it holds a share of 0\.5"):
        find(inputs, tmp_path / "out", store="half")


def test_a_point_of_another_datastore_is_an_error(inputs, tmp_path):
    place = tmp_path / "other" / "seed0.json"
    other = write_point(place, POINT, datastore="other", seed="0")

    with pytest.raises(ArtifactError, match="it is for other"):
        find(inputs, tmp_path / "out", tuned=other)
