"""Masks and scores are combined from stored neighbors as the definition says."""

import shutil

import numpy as np
import pytest
from scored_run_artifacts import SETTINGS, K, write_masks, write_run

from knnlm.experiments.shared.masks import IN_HALF, MODES, Masks
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.sampling import evenly_spaced
from knnlm.runtime.artifacts import ArtifactError

SEARCHED = 150
BLOCK = {"exact": "exact", "index": "ivfpq", "queries": SEARCHED}
STORES = {"base": {"model": "base", "corpus": "made-up", "queries": None}}
CODES, MASKED, REAL = MODES


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    made = write_run(root, seeds=(0,), models=["base"], datastores=["base"])
    return made | {"masks": [write_masks(root, made, ["0.1"], searched=SEARCHED)]}


@pytest.fixture(scope="module")
def masks(inputs):
    run = ScoredRun.of("temperature", inputs, SETTINGS | {"datastores": STORES, "lm_seeds": [0]})
    return Masks(run, 0, inputs["masks"][0], BLOCK)


def of_whole(inputs, index, *, rough=False):
    (folder,) = (f for f in inputs["neighbors"] if {index, "test"} <= {*f.parts})
    return load_neighbors(folder, rough=rough)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_probability_in_the_whole_datastore_is_that_of_its_mask_by_its_score(inputs, masks, mode):
    found = of_whole(inputs, "exact" if mode.mask == "real" else "ivfpq", rough=mode is not REAL)
    places = evenly_spaced(len(found.ids), SEARCHED)
    distances = (found.rough if mode is CODES else found.distances)[places]
    targets = masks.scored["test"].targets
    expected = knn_log_probs(distances, found.values[places], targets, temperature=1.5)

    tempered = masks.tempered("1.0", mode, relative=[0.4], fixed=[1.5])

    np.testing.assert_allclose(tempered.knn_log_probs(0), expected, rtol=1e-10)
    lm = masks.scored["test"].queries.lm_log_probs[places]
    mixed = -mix_log_probs(lm, expected, 0.3)
    np.testing.assert_allclose(tempered.nll(0, 0.3), mixed, rtol=1e-10)
    oracle = [max(*pair) for pair in zip(lm, expected, strict=True)]
    np.testing.assert_allclose(tempered.oracle(0), -np.array(oracle), rtol=1e-10)
    unit = tempered.temperatures[1] / 0.4
    assert unit == pytest.approx(tempered.unit)


def test_in_a_share_missing_neighbors_weigh_nothing(inputs, masks):
    stored = np.load(inputs["masks"][0] / "0.1-approximate-test.npz")
    weights = np.exp(-stored["rough"][:, : K // 2].astype(float) / 2)
    expected = (weights * stored["matches"][:, : K // 2]).sum(axis=1) / weights.sum(axis=1)

    tempered = masks.tempered("0.1", CODES, relative=[], fixed=[2.0])

    np.testing.assert_allclose(tempered.probs["test"][0], expected, rtol=1e-10)


def test_the_best_lmbda_of_each_temperature_is_that_of_a_search_by_hand(masks):
    lmbdas = np.array([0.1, 0.4, 0.8])
    tempered = masks.tempered("0.1", REAL, relative=[0.2, 1.0])

    chosen, nll = tempered.best(lmbdas, split="test")

    for place in (0, 1):
        means = [tempered.nll(place, lmbda).mean() for lmbda in lmbdas]
        assert chosen[place] == lmbdas[np.argmin(means)]
        assert nll[place] == pytest.approx(min(means))


def test_half_precision_has_neighbors_of_its_own(inputs, masks):
    stored = np.load(inputs["masks"][0] / "1.0-half-validation.npz")

    distances, matches = masks.candidates("1.0", IN_HALF, "validation")

    np.testing.assert_array_equal(distances, stored["distances"])
    np.testing.assert_array_equal(matches, stored["matches"])


def test_recall_is_the_share_of_neighbors_no_further_than_the_last_real_one(inputs, masks):
    real = np.load(inputs["masks"][0] / "0.1-real-test.npz")["distances"]
    found = np.load(inputs["masks"][0] / "0.1-approximate-test.npz")["distances"]
    counted = [(row <= last[-1]).sum() for row, last in zip(found, real, strict=True)]

    assert masks.recall("0.1", "approximate") == sum(counted) / found.size


def test_neighbors_of_other_queries_are_refused(inputs, masks, tmp_path):
    validation = [f for f in inputs["queries"] if "validation" in f.parts]
    twice = shutil.copytree(validation[0], tmp_path / "base" / "seed0" / "test")
    folder = write_masks(tmp_path, {"queries": [*validation, twice]}, ["0.1"], searched=SEARCHED)

    with pytest.raises(ArtifactError, match="made from another queries_test"):
        _ = Masks(masks.run, 0, folder, BLOCK).scored


def test_a_damaged_file_is_named(inputs, masks, tmp_path):
    folder = shutil.copytree(inputs["masks"][0], tmp_path / "masks" / "seed0")
    (folder / "0.1-real-test.npz").write_bytes(b"nothing")

    with pytest.raises(ArtifactError, match=r"0\.1-real-test\.npz cannot be read .* rebuild"):
        Masks(masks.run, 0, folder, BLOCK).candidates("0.1", REAL, "test")
