"""The same neighbors by codes and by full keys, and the true ones, are compared in pairs."""

import numpy as np
import pytest
from scored_run_artifacts import BASELINE, SEEDS, SETTINGS, K, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.distance_precision.checks import check
from knnlm.experiments.distance_precision.figure import draw
from knnlm.experiments.distance_precision.table import by_codes, evaluate
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.neighbors import Neighbors, load_neighbors
from knnlm.retrieval.sampling import Entries
from knnlm.retrieval.tuning import tune
from knnlm.runtime.artifacts import ArtifactError, read_manifest, write_manifest
from knnlm.runtime.settings import SettingsError

OWN = {
    "distance_precision": {"index": "ivfpq"},
    "datastores": {"base": {"model": "base", "queries": None}},
}


def drop_codes(folder):
    """Take the distances by codes away, as an index that does not rescore has none."""
    path = folder / "block-00000.npz"
    manifest = read_manifest(folder, kind="neighbors")
    with np.load(path) as block:
        arrays = {name: block[name] for name in block if name != "rough"}
    np.savez(path, **arrays)
    contents = manifest["contents"] | {"search": {"engine": "ivfpq", "rescore": False}}
    parts = {name: manifest[name] for name in ("kind", "names", "settings", "made_from")}
    write_manifest(folder, **parts, contents=contents)


@pytest.fixture
def inputs(tmp_path):
    return write_run(tmp_path, models=["base"], datastores=["base"])


def test_codes_full_keys_and_true_neighbors_have_rows_of_their_own_tuned_points(inputs):
    table = evaluate(inputs, SETTINGS | OWN)["table"]

    levels = select(table, metric="perplexity_per_token", seed="0", method="knn_lm")
    names = [
        f"{n}/{way}" for n in ("codes", "full_keys", "exact") for way in ("largest_k", "tuned")
    ]
    assert levels["setting"].tolist() == names
    assert set(select(table, metric="k", setting="codes/largest_k")["value"]) == {K}
    change = select(table, metric="perplexity_per_token_change_vs_codes", seed="0")
    by_name = levels.set_index("setting")["value"]
    expected = 100 * (by_name["full_keys/largest_k"] / by_name["codes/largest_k"] - 1)
    found = change.set_index("setting")["value"]["full_keys/largest_k"]
    assert found == pytest.approx(expected)
    assert len(select(table, metric="perplexity_per_token", seed="all")) == 1 + len(names)
    assert draw({"table": table}).axes[0].get_xlabel() == "perplexity per word (test)"
    _the_point_by_codes_is_the_best_on_validation(inputs, table)


def _the_point_by_codes_is_the_best_on_validation(inputs, table):
    (folder,) = (f for f in inputs["neighbors"] if {"ivfpq", "seed0", "validation"} <= set(f.parts))
    (queries,) = (f for f in inputs["queries"] if {"seed0", "validation"} <= set(f.parts))
    found, scored = by_codes(load_neighbors(folder, rough=True)), load_queries(queries)
    arrays = (found.distances, found.values, scored.targets, scored.lm_log_probs)
    tuning = tune(*arrays, grid=BASELINE["grid"])
    chosen = select(table, metric="lmbda", setting="codes/tuned", seed=str(SEEDS[0]))
    assert chosen["value"].item() == pytest.approx(tuning.point.lmbda)


def test_neighbors_by_codes_are_the_same_in_the_order_of_the_codes():
    found = Neighbors(
        ids=np.array([[4, 9, 2, -1]]),
        distances=np.array([[1.0, 2.0, 3.0, np.inf]], np.float32),
        values=np.array([[40, 90, 20, -1]], np.int32),
        places=np.arange(1),
        entries=Entries(10),
        rough=np.array([[2.5, 0.5, 1.5, np.inf]], np.float32),
    )

    by = by_codes(found)

    assert by.ids.tolist() == [[9, 2, 4, -1]]
    assert by.values.tolist() == [[90, 20, 40, -1]]
    assert by.distances.tolist() == [[0.5, 1.5, 2.5, np.inf]]


def test_neighbors_without_distances_by_codes_are_refused(inputs):
    for folder in inputs["neighbors"]:
        if "ivfpq" in folder.parts:
            drop_codes(folder)

    with pytest.raises(ArtifactError, match="to have distances by codes beside the full ones"):
        evaluate(inputs, SETTINGS | OWN)


@pytest.mark.parametrize("index", ["exact", "codes_alone"])
def test_an_index_without_both_distances_is_refused_before_any_job(index):
    indexes = {"exact": {"engine": "exact"}, "codes_alone": {"engine": "ivfpq", "rescore": False}}

    with pytest.raises(SettingsError, match=r"distance_precision.index: expected .* rescore: true"):
        check({"distance_precision": {"index": index}, "indexes": indexes})
