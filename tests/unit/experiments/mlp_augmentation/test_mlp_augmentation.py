"""The experiment end to end on a small model: what is compared, and with what."""

import random
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
from lm_artifacts import MODEL, VOCABULARY
from retrieval_artifacts import (
    find_neighbors,
    make_datastore,
    make_index,
    write_inputs,
    write_scored,
)
from scored_run_artifacts import called, write_point

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import means_over_seeds, read_table, select, tidy, write_table
from knnlm.experiments.mlp_augmentation import table as mlp_augmentation_table
from knnlm.experiments.mlp_augmentation.controls import equal_flops_updates, train_control
from knnlm.experiments.mlp_augmentation.figure import draw, lines_of
from knnlm.experiments.mlp_augmentation.macondo import macondo_rows
from knnlm.experiments.mlp_augmentation.stored_replacement import (
    load_replacement,
    train_replacement,
)
from knnlm.experiments.mlp_augmentation.table import evaluate
from knnlm.experiments.shared.cost import storage_of
from knnlm.lm.model import create_model
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mixture_weight import best_lmbda
from knnlm.retrieval.mlp_replacement import HEADS, replacement_log_probs
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.tuning import Point, nll_at
from knnlm.runtime.artifacts import MANIFEST, ArtifactError, read_manifest
from knnlm.runtime.making import Target

SITE = "ffn_input_after_layer_norm"
SPLITS = ("validation", "test")
CONTROLS = ("last_layers", "whole_model")
D, HIDDEN, ENTRIES = MODEL["width"], 2 * MODEL["width"], 302
TRAINING = {
    "hidden_multiple": 2,
    "epochs": 2,
    "batch_size": 32,
    "accumulation": 1,
    "optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
    "clip_norm": None,
    "precision": "fp32",
    "save_every": 5,
    "buffer_mib": 1,
}
BASELINE = {
    "datastore": "base",
    "index": "exact",
    "indexes": ["exact", "ivf_flat"],
    "grid": {"lmbdas": {"low": 0.1, "high": 0.9, "count": 9}},
    "bootstrap": {"samples": 100, "seed": 0},
}
INDEXES = {
    "exact": {"engine": "exact", "metric": "l2"},
    "ivf_flat": {
        "engine": "ivf_flat",
        "metric": "l2",
        "n_centroids": 8,
        "n_probes": 2,
        "train_keys": 300,
        "rescore": False,
    },
}
SETTINGS = {
    "corpus": "small",
    "lm_seeds": [0],
    "baseline": BASELINE,
    "datastores": {"base": {"model": "base"}},
    "indexes": INDEXES,
    "mlp_augmentation": {"heads": list(HEADS), "controls": list(CONTROLS), "training": TRAINING},
}
POINTS = {"exact": Point(4, 2.0, 0.3), "ivf_flat": Point(3, 1.0, 0.5)}
SEED_0 = {"seed": "0"}
STORE = {"datastore": "base", **SEED_0}


def macondo_table(seeds=(0, 1), lm=(5.0, 5.0), mlp=(4.0, 3.0)):
    """Return a table of overspecification: LM and MLP of each seed as given."""
    rows = [
        {"experiment": "overspecification", "model": "base", "split": "test", "seed": seed}
        | {"setting": "end/all", "metric": metric, "n": 300, "unit": "perplexity"}
        | {"method": method, "value": value}
        for metric in ("child_perplexity", "perplexity_per_token")
        for seed, theirs, ours in zip(seeds, lm, mlp, strict=True)
        for method, value in {"lm": theirs, "mlp_lm/random": ours}.items()
    ]
    foreign = rows[0] | {"metric": "child_log_likelihood", "unit": "nats"}
    table = tidy([*rows, foreign, rows[0] | {"split": "validation"}])
    return pd.concat([table, means_over_seeds(table)], ignore_index=True)


def queries_of(root, name, split):
    """Return the folder of the queries that the LM or a control scored."""
    kind = "queries" if name == "base" else "continued_queries"
    return root / f"{kind}/{name}/seed0/small/{split}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return what the workflow would have made for one seed."""
    root = tmp_path_factory.mktemp("run")
    lm = write_inputs(root)
    model = root / "models/base/seed0"
    shutil.copytree(lm["model"], model)
    called(model, model="base", **SEED_0)
    lm |= {"model": model}
    store = root / "datastores/base/seed0"
    make_datastore(store, site=SITE, stride=4, dtype="float16", shard_mib=1, **lm)
    called(store, **STORE)
    for head in HEADS:
        target = Target(root / f"replacements/base/seed0/{head}", "f", STORE | {"head": head})
        train_replacement(target, datastore=store, model=model, settings=TRAINING)
    for control in CONTROLS:
        names = {"control": control, **SEED_0}
        target = Target(root / f"continued/{control}/seed0", "f", names)
        train_control(target, settings=TRAINING, **lm)
    every = {"tokens": None, "tokens_per_document": None, "stride": 4, "seed": 0}
    networks = {"base": model} | {name: root / f"continued/{name}/seed0" for name in CONTROLS}
    for name, split in product(networks, SPLITS):
        inputs = {"model": networks[name], "tokens": lm["tokens"], "queries": every}
        folder = write_scored(queries_of(root, name, split), split=split, **inputs)
        kind = "model" if name == "base" else "control"
        called(folder, corpus="small", split=split, **{kind: name}, **SEED_0)
    for name, index in INDEXES.items():
        built = root / f"indexes/base/seed0/{name}"
        called(make_index(built, datastore=store, index=index), index=name, **STORE)
        found = find_neighbors(
            root / f"neighbors/base/seed0/{name}/small/test",
            datastore=store,
            index=built,
            queries=queries_of(root, "base", "test"),
            k=4,
            block_queries=64,
            recall_sample=8,
        )
        place = {"index": name, "corpus": "small", **STORE}
        called(found, split="test", **place)
        write_point(root / f"tuned/base/seed0/{name}/small.json", POINTS[name], **place)
    write_table(root / "overspecification.csv", macondo_table())
    return root


def inputs_of(root):
    """Return the inputs of the rule, in no order that means anything."""
    found = {
        "macondo_table": [root / "overspecification.csv"],
        "models": [root / "models/base/seed0"],
        "datastores": [root / "datastores/base/seed0"],
        "indexes": [root / f"indexes/base/seed0/{name}" for name in INDEXES],
        "queries": [queries_of(root, "base", split) for split in SPLITS],
        "neighbors": [root / f"neighbors/base/seed0/{name}/small/test" for name in INDEXES],
        "tuned": [root / f"tuned/base/seed0/{name}/small.json" for name in INDEXES],
        "replacements": [root / f"replacements/base/seed0/{head}" for head in HEADS],
        "controls": [root / f"continued/{name}/seed0" for name in CONTROLS],
        "control_queries": [queries_of(root, *of) for of in product(CONTROLS, SPLITS)],
    }
    return {name: random.Random(1).sample(paths, len(paths)) for name, paths in found.items()}


@pytest.fixture(scope="module")
def table(folders):
    return evaluate(inputs_of(folders), SETTINGS)["table"]


def value(table, method, setting, metric, **names):
    return select(table, method=method, setting=setting, metric=metric, **names)["value"].item()


@pytest.mark.parametrize("head", HEADS)
def test_the_mlp_is_mixed_with_the_weight_that_validation_chose(folders, table, head):
    module = load_replacement(
        folders / f"replacements/base/seed0/{head}", model=folders / "models/base/seed0"
    )
    lm = {split: load_queries(queries_of(folders, "base", split)) for split in SPLITS}
    mlp = {
        split: replacement_log_probs(module, queries.hidden(SITE), queries.targets)
        for split, queries in lm.items()
    }
    nll = {
        lmbda: -mix_log_probs(lm["validation"].lm_log_probs, mlp["validation"], lmbda).mean()
        for lmbda in np.linspace(0.1, 0.9, 9)
    }
    best = min(nll, key=nll.get)
    mixed = mix_log_probs(lm["test"].lm_log_probs, mlp["test"], best)

    assert value(table, "mlp", f"{head}/interpolated", "lmbda") == pytest.approx(best)
    for way, log_probs in {"interpolated": mixed, "alone": mlp["test"]}.items():
        found = value(table, "mlp", f"{head}/{way}", "perplexity_per_token")
        assert found == pytest.approx(np.exp(-log_probs.mean()))


@pytest.mark.parametrize("index", INDEXES)
def test_each_index_has_its_own_neighbors_and_its_own_point(folders, table, index):
    queries = load_queries(queries_of(folders, "base", "test"))
    found = load_neighbors(folders / f"neighbors/base/seed0/{index}/small/test")

    nll = nll_at(
        POINTS[index], found.distances, found.values, queries.targets, queries.lm_log_probs
    )

    level = value(table, "knn_lm", f"{index}/tuned", "perplexity_per_token")
    assert level == pytest.approx(np.exp(nll.mean()))


def test_the_weight_is_validation_s_where_test_would_choose_another(folders, monkeypatch):
    lm = {len(q.targets): q.lm_log_probs for q in map(load_queries, inputs_of(folders)["queries"])}
    n_test, n_validation = sorted(lm)
    better = {n_validation: 0.5, n_test: -0.5}  # than the LM, in nats
    monkeypatch.setattr(
        mlp_augmentation_table,
        "replacement_log_probs",
        lambda module, hidden, targets: lm[len(targets)] + better[len(targets)],
    )

    table = evaluate(inputs_of(folders), SETTINGS)["table"]

    assert value(table, "mlp", "random/interpolated", "lmbda") == pytest.approx(0.9)
    worse = -np.log(0.1 + 0.9 * np.exp(-0.5))  # which 0.1, the best on test, would make less
    found = value(table, "mlp", "random/interpolated", "nats_per_token_vs_lm")
    assert found == pytest.approx(worse)


def test_without_weight_the_mixture_is_the_lm_itself():
    lm, mlp = np.log([0.2, 0.5]), np.log([0.9, 0.9])

    np.testing.assert_array_equal(mix_log_probs(lm, mlp, 0.0), lm)


def test_the_best_weight_of_equal_ones_is_the_smallest():
    same = np.log([0.2, 0.5])
    worse, better = same - 1, same + 0.1

    grid = np.linspace(0.1, 0.9, 9)
    assert best_lmbda(same, worse, grid) == pytest.approx(0.1)
    assert best_lmbda(same, better, grid) == pytest.approx(0.9)


def test_differences_are_to_the_lm_to_knn_and_to_the_control_in_the_same_way(table):
    nats = {
        key: np.log(value(table, *key, "perplexity_per_token"))
        for key in [
            ("lm", ""),
            ("knn_lm", "exact/tuned"),
            ("last_layers", "alone"),
            ("mlp", "random/alone"),
            ("whole_model", "interpolated"),
            ("mlp", "random/interpolated"),
        ]
    }

    for key, against, baseline in [
        (("mlp", "random/alone"), "lm", ("lm", "")),
        (("mlp", "random/alone"), "knn_lm", ("knn_lm", "exact/tuned")),
        (("mlp", "random/alone"), "last_layers", ("last_layers", "alone")),
        (("mlp", "random/interpolated"), "whole_model", ("whole_model", "interpolated")),
        (("last_layers", "alone"), "knn_lm", ("knn_lm", "exact/tuned")),
    ]:
        found = value(table, *key, f"nats_per_token_vs_{against}")
        assert found == pytest.approx(nats[key] - nats[baseline])


def test_bytes_are_those_on_disk_and_w_counts_when_it_is_its_own(folders, table):
    keys, values = ENTRIES * D, 2 * ENTRIES + 128  # of the header of .npy
    mlp = 4 * (D * HIDDEN + HIDDEN + HIDDEN * D + D + 2 * D)
    parts = [
        path
        for path in (folders / "indexes/base/seed0/ivf_flat").iterdir()
        if path.name != MANIFEST
    ]
    head, index = 4 * VOCABULARY * D, sum(path.stat().st_size for path in parts)
    block = 4 * (2 * D * MODEL["ffn_width"] + MODEL["ffn_width"] + D + 4 * D)  # MLP and two norms

    expected = {
        ("knn_lm", "keys_float16_and_values"): 2 * keys + values,
        ("knn_lm", "keys_float32_and_values"): 4 * keys + values,
        ("knn_lm", "ivf_flat_and_values"): index + values,
        ("mlp", "lm_head_frozen"): mlp,
        ("mlp", "lm_head_trained"): mlp + head,
        ("mlp", "random"): mlp + head,
        ("last_layers", ""): block + head,
    }
    assert {key: value(table, *key, "bytes") for key in expected} == expected
    share = value(table, "mlp", "random", "share_of_keys_float16_and_values")
    assert share == pytest.approx(100 * (mlp + head) / (2 * keys + values))


def test_the_fused_engine_stores_nothing_but_the_values(folders, tmp_path):
    store = folders / "datastores/base/seed0"
    index = {"engine": "fused", "metric": "l2", "block_keys": 64}

    found = storage_of(
        store, {"fused": make_index(tmp_path / "fused", datastore=store, index=index)}
    )

    assert found["fused_and_values"] == 2 * ENTRIES + 128


def test_a_control_reads_as_many_tokens_or_costs_as_many_flops(folders, table):
    trained = {head: folders / f"replacements/base/seed0/{head}" for head in HEADS}
    pairs = {head: read_manifest(path, kind="mlp_replacement") for head, path in trained.items()}
    updates = {head: manifest["contents"]["updates"] for head, manifest in pairs.items()}
    last = read_manifest(folders / "continued/last_layers/seed0", kind="model")["contents"]
    whole = read_manifest(folders / "continued/whole_model/seed0", kind="model")["contents"]

    assert set(updates.values()) == {last["updates"]} == {2 * ENTRIES // 32}
    assert last["tokens"] == pairs["random"]["contents"]["pairs"]
    spent = value(table, "whole_model", "", "training_flops")
    one = spent / whole["updates"]
    assert abs(spent - value(table, "mlp", "lm_head_trained", "training_flops")) <= one / 2


def test_last_layers_cost_their_products_and_the_reading_of_those_below(table):
    last, length = D * VOCABULARY + 2 * D * MODEL["ffn_width"], MODEL["context"]
    below = 4 * D * D + 2 * D * MODEL["ffn_width"] + 4 * D * D + 2 * 2 * length * D

    assert value(table, "last_layers", "", "flops_per_query_added") == 2 * last
    trained = select(table, method="last_layers", metric="training_flops")
    assert trained["value"].item() == trained["n"].item() * (6 * last + 2 * below)


def test_equal_flops_are_those_of_matrix_products():
    lm = create_model(MODEL, vocabulary_size=VOCABULARY, seed=0)
    head, mlp, length = D * VOCABULARY, 2 * D * HIDDEN, MODEL["context"]
    block = 4 * D * D + 2 * D * MODEL["ffn_width"] + 2 * length * D
    # A replacement needs no gradient with respect to its keys.
    replacement = 6 * (mlp + head) - 2 * D * HIDDEN

    expected = 1000 * replacement / (6 * (2 * block + head))
    assert equal_flops_updates(lm, 1000, settings=TRAINING) == round(expected)


def test_macondo_is_taken_over_with_changes_paired_within_a_seed():
    rows = tidy(macondo_rows(macondo_table(), experiment="mlp_augmentation"))

    assert set(rows["corpus"]) == {"macondo"}
    kinds = ("child_perplexity", "perplexity_per_token")
    assert set(rows["metric"]) == {*kinds, *(f"{kind}_change_vs_lm" for kind in kinds)}
    assert value(rows, "mlp/random", "end/all", "child_perplexity", seed="1") == 3.0
    change = select(rows, method="mlp/random", metric="child_perplexity_change_vs_lm")
    changes = change.set_index("seed")
    assert changes.loc["0", "value"] == pytest.approx(-20)
    assert changes.loc["all", "value"] == pytest.approx(100 * (np.sqrt(0.8 * 0.6) - 1))
    assert changes.loc["all", "ci_low"] < -40 < -20 < changes.loc["all", "ci_high"]


def test_a_change_is_against_the_lm_of_its_own_seed():
    theirs = macondo_table(lm=(5.0, 10.0), mlp=(4.0, 8.0))

    rows = tidy(macondo_rows(theirs, experiment="mlp_augmentation"))

    changes = select(rows, method="mlp/random", metric="child_perplexity_change_vs_lm")
    assert changes[["value"]].to_numpy() == pytest.approx(-20)
    overall = select(changes, seed="all")[["ci_low", "ci_high"]].to_numpy()
    assert overall == pytest.approx(-20)


def test_the_table_and_the_figure_have_the_same_bytes_every_time(table, tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.csv", table)
        read = read_table(tmp_path / f"{name}.csv")
        with look():
            paths = {kind: tmp_path / f"{name}.{kind}" for kind in ("svg", "png")}
            save_figure(draw({"table": read}), **paths)

    for kind in ("csv", "svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_means_over_the_seeds_of_macondo_hide_no_row_of_the_corpus(table):
    macondo, corpus = (table[(table["corpus"] == "macondo") == kind] for kind in (True, False))
    assert "all" in set(macondo["seed"])  # the LM has one seed, Macondo has several
    assert "all" not in set(corpus["seed"])

    labels = [label.get_text() for label in draw({"table": table}).axes[0].get_yticklabels()]

    assert labels[0] == "kNN-LM, exact"
    assert labels == [row.label for row in lines_of(corpus)]


def test_a_replacement_of_another_model_is_an_error(folders):
    replacement = folders / "replacements/base/seed0/random"

    with pytest.raises(ArtifactError, match="made from another model"):
        load_replacement(replacement, model=folders / "continued/whole_model/seed0")


def test_folders_in_another_order_give_the_same_table(folders, table):
    inputs = {name: sorted(paths) for name, paths in inputs_of(folders).items()}

    assert inputs != inputs_of(folders)
    assert evaluate(inputs, SETTINGS)["table"].equals(table)


@pytest.mark.parametrize(
    ("name", "path", "there"),
    [
        (
            "replacements",
            "replacements/base/seed0/random",
            "replacements/base/seed0/lm_head_frozen",
        ),
        ("controls", "continued/last_layers/seed0", "continued/whole_model/seed0"),
        (
            "control_queries",
            "continued_queries/last_layers/seed0/small/test",
            "continued_queries/last_layers/seed0/small/validation",
        ),
        ("indexes", "indexes/base/seed0/exact", "indexes/base/seed1/exact"),
    ],
)
def test_a_folder_in_the_place_of_another_stops_with_its_name(folders, tmp_path, name, path, there):
    moved = tmp_path / there
    shutil.copytree(folders / path, moved)
    inputs = inputs_of(folders)
    inputs[name] = [moved if folder == folders / path else folder for folder in inputs[name]]

    with pytest.raises(ArtifactError, match=f"expected {moved} to be what its path says"):
        evaluate(inputs, SETTINGS)


def test_a_control_that_scored_other_positions_stops_with_its_folder(folders, tmp_path):
    folder = tmp_path / "continued_queries/last_layers/seed0/small/test"
    inputs = inputs_of(folders)
    real = queries_of(folders, "last_layers", "test")
    shutil.copytree(queries_of(folders, "last_layers", "validation"), folder)
    called(folder, control="last_layers", corpus="small", split="test", **SEED_0)
    queries = [folder if path == real else path for path in inputs["control_queries"]]

    with pytest.raises(ArtifactError, match=f"expected {folder} to score the same positions"):
        evaluate(inputs | {"control_queries": queries}, SETTINGS)
