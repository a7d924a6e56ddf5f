"""Which folder is which stands in its manifest, and methods are compared on the same positions."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scored_run_artifacts import BASELINE, SETTINGS, K, write_neighbors, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.key_function.table import evaluate as evaluate_sites
from knnlm.experiments.knn_perplexity.table import evaluate
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.retrieval.sampling import Entries
from knnlm.runtime.artifacts import ArtifactError, read_manifest, write_manifest

SEARCHED = {"model": "base", "queries": 90}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def inputs(root):
    return write_run(root)


def run_of(inputs):
    return ScoredRun.of("an_experiment", inputs, SETTINGS)


def test_folders_in_any_order_give_the_same_table(inputs):
    shuffled = {name: random.Random(0).sample(paths, len(paths)) for name, paths in inputs.items()}

    tables, again = (evaluate(given, SETTINGS) for given in (inputs, shuffled))

    assert shuffled["queries"] != inputs["queries"]
    for name, table in tables.items():
        assert table.equals(again[name])


@pytest.mark.parametrize("name", ["seed0", "test", "base"])
@pytest.mark.parametrize("kind", ["queries", "neighbors"])
def test_a_folder_in_the_place_of_another_stops_with_its_name(inputs, tmp_path, kind, name):
    theirs = {"seed0": "seed1", "test": "validation", "base": "other"}[name]
    real = next(folder for folder in inputs[kind] if name in folder.parts)
    moved = tmp_path.joinpath(*(theirs if part == name else part for part in real.parts[-6:]))
    shutil.copytree(real, moved)
    given = [moved if folder == real else folder for folder in inputs[kind]]

    with pytest.raises(ArtifactError, match=f"expected {moved} to be what its path says"):
        evaluate({**inputs, kind: given}, SETTINGS)


@pytest.mark.parametrize("kind", ["queries", "neighbors", "tuned"])
def test_what_is_missing_is_named(inputs, kind):
    given = [path for path in inputs[kind] if "seed1" not in path.parts]

    with pytest.raises(ArtifactError, match=r"seed 1|base/1/exact"):
        evaluate({**inputs, kind: given}, SETTINGS)


def test_neighbors_of_other_queries_stop_the_evaluation(inputs, root, tmp_path):
    foreign = root / "queries/longer/seed0/made-up/test"
    names = {"datastore": "base", "seed": "0", "index": "exact", "split": "test"}
    theirs = write_neighbors(tmp_path, foreign, **names)
    ours = next(p for p in inputs["neighbors"] if str(p).endswith("seed0/exact/made-up/test"))
    given = [theirs if folder == ours else folder for folder in inputs["neighbors"]]

    with pytest.raises(ArtifactError, match=f"{theirs} was made from another queries"):
        evaluate({**inputs, "neighbors": given}, SETTINGS)


def test_a_control_that_scored_other_tokens_stops_with_its_folder(root, inputs, tmp_path):
    real = root / "queries/longer/seed0/made-up/validation"
    folder = tmp_path / "queries/longer/seed0/made-up/validation"
    shutil.copytree(real, folder)
    np.save(folder / "positions.npy", np.load(folder / "positions.npy")[::-1].copy())
    manifest = read_manifest(real, kind="queries")
    parts = {name: manifest[name] for name in ("names", "settings", "made_from", "contents")}
    write_manifest(folder, kind="queries", **parts)
    given = [folder if path == real else path for path in inputs["queries"]]

    with pytest.raises(ArtifactError, match=f"expected {folder} to score the same positions"):
        evaluate({**inputs, "queries": given}, SETTINGS)


def test_evenly_spaced_positions_have_their_own_neighbors_and_differences(inputs):
    run = run_of(inputs)
    every, some = run.scored(0), run.scored(0, positions=100)

    whole, part = run.retrieved(every), run.retrieved(some)

    assert part.found.distances.shape == (100, K)
    np.testing.assert_array_equal(part.nll, whole.nll[some.places])
    rows = some.rows("knn_lm", "tuned", part.nll, against={"lm": some.nll, "itself": part.nll})
    values = {row["metric"]: row["value"] for row in rows}
    assert values["nats_per_token_vs_lm"] == pytest.approx((part.nll - some.nll).mean())
    assert not any("itself" in metric for metric in values)
    assert {row["n"] for row in rows if "per_token" in row["metric"]} == {100}


def test_a_share_of_the_positions_has_fewer_entries(inputs, tmp_path):
    run = run_of(inputs)
    retrieved = run.retrieved(run.scored(0))
    contents = retrieved.searched | {"entries": Entries(479, share=0.25).described()}
    write_manifest(tmp_path, kind="neighbors", settings={}, made_from={}, contents=contents)

    assert retrieved.n_entries == 479
    assert replace(retrieved, folder=tmp_path).n_entries == 120


def test_other_places_of_the_same_text_are_not_paired(inputs):
    run = run_of(inputs)
    some = run.scored(0, positions=100)

    some.require_paired(run.scored(0, model="longer", positions=100))
    with pytest.raises(ArtifactError, match=r"longer/seed0/.* to score the same positions"):
        some.require_paired(run.scored(0, model="longer"))


SITES = {"of_output": "output_after_layer_norm", "base": "ffn_input_after_layer_norm"}


def test_each_datastore_has_its_own_neighbors_and_tuned_point(tmp_path):
    inputs = write_run(tmp_path, datastores=SITES, models=["base"])
    stores = {name: SEARCHED | {"site": site} for name, site in SITES.items()}
    own = SETTINGS | {"datastores": stores, "key_function": {"datastores": [*SITES]}}
    run = ScoredRun.of("an_experiment", inputs, own)
    scored = run.scored(1, positions=90)
    nll = {site: run.retrieved(scored, datastore=name).nll.mean() for name, site in SITES.items()}

    table = evaluate_sites(inputs, own)["table"]

    rows = select(table, seed="1", split="test", metric="perplexity_per_token")
    found = dict(zip(rows["setting"], np.log(rows["value"]), strict=True))
    assert found == pytest.approx(nll | {"no datastore": scored.nll.mean()})
    metric = f"nats_per_token_vs_{SITES['base']}"
    difference = select(table, seed="1", setting=SITES["of_output"], metric=metric)["value"]
    assert difference.item() == pytest.approx(nll[SITES["of_output"]] - nll[SITES["base"]])


def test_positions_that_were_not_searched_are_an_error(tmp_path):
    inputs = write_run(tmp_path, seeds=(0,), searched=90)
    run = ScoredRun.of("an_experiment", inputs, SETTINGS | {"datastores": {"base": SEARCHED}})

    assert len(run.retrieved(run.scored(0, searched_in=["base"])).nll) == 90
    assert len(run.retrieved(run.scored(0, searched_in=["base"], positions=45)).nll) == 45
    with pytest.raises(ArtifactError, match=r"expected .* to have neighbors of 440 positions"):
        run.retrieved(run.scored(0)).found  # noqa: B018


def test_the_tuned_point_of_a_row_is_the_one_of_the_file(inputs):
    run = run_of(inputs)

    rows = run.retrieved(run.scored(1), index="ivfpq").tuned_rows("ivfpq/tuned")

    values = {row["metric"]: row["value"] for row in rows}
    tuned = run.tuned["base", 1, "ivfpq", "made-up"]
    assert (values["k"], values["temperature"], values["lmbda"]) == tuned.point
    assert values["k"] in BASELINE["grid"]["k"]
