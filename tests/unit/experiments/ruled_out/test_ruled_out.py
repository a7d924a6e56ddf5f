"""The experiment end to end on small models: what is mixed, how it is tuned, what is said of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lm_artifacts import VOCABULARY, write_tokenizer, write_tokens
from retrieval_artifacts import (
    find_neighbors,
    make_datastore,
    make_index,
    write_model,
    write_scored,
)
from scored_run_artifacts import called

from knnlm.evidence.claims import Evidence, evaluate_claims, read_claims
from knnlm.evidence.plotting import look
from knnlm.evidence.tables import select
from knnlm.experiments.ruled_out.alternatives import score_alternatives
from knnlm.experiments.ruled_out.checks import check
from knnlm.experiments.ruled_out.convex_hull import How
from knnlm.experiments.ruled_out.figure import draw
from knnlm.experiments.ruled_out.stolen_probabilities import (
    certify_output_vectors,
    head_without_bias,
    read_certificates,
)
from knnlm.experiments.ruled_out.table import evaluate
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model, save_model
from knnlm.retrieval.interpolation import knn_log_probs
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.tuning import read_tuned, tune_interpolation
from knnlm.runtime.artifacts import ArtifactError, identity, write_manifest
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.making import Target
from knnlm.runtime.settings import SettingsError, resolve

ROOT = Path(__file__).parents[4]
SITE = "ffn_input_after_layer_norm"
SEEDS, SPLITS, K, N_DOCUMENTS = (0, 1), ("validation", "test"), 20, 32
SERIES = {"low": 0.05, "high": 1.0, "count": 3}
INDEXES = {
    "exact": {"engine": "exact", "metric": "l2"},
    "exact_ip": {"engine": "exact", "metric": "ip"},
}
OTHER_TRAININGS = (  # here the LM itself: test_trained.py has others
    "mixture_of_softmaxes",
    "soft_labels_of_lm",
    "soft_labels_of_knn_lm",
    "interpolated_loss",
)
SETTINGS = {
    "corpus": "small",
    "lm_seeds": list(SEEDS),
    "second_metric_seeds": [0],
    "baseline": {
        "datastore": "base",
        "index": "exact",
        "grid": {
            "k": [1, K],
            "temperatures": SERIES,
            "lmbdas": {"low": 0.05, "high": 0.95, "count": 10},
        },
        "bootstrap": {"samples": 100, "seed": 0},
    },
    "datastores": {"base": {"model": "base", "queries": None}},
    "indexes": INDEXES,
    "ruled_out": {
        "sparsified_lm": {"k": [1, 4, VOCABULARY]},
        "clustered_datastore": {
            "clusters": [3, 12],
            "train_keys": 100,
            "iterations": 3,
            "temperatures": SERIES,
        },
        "output_distances": {"sites": [SITE], "temperatures": SERIES},
        "two_metrics": {"index": "exact_ip", "weights": [0.25, 0.75]},
        "stolen_probabilities": {"random_directions": 4, "steps": 1},
        "trained": {"control": "base", "lms": dict.fromkeys(OTHER_TRAININGS, "base")},
    },
}
WORDS = (6, 7)  # tokens whose output vectors are equal in the LM of seed 1


def write_lm(root, tokenizer, tokens, seed):
    """Write all that the workflow makes of one LM seed; return it by the name of the input."""
    model = root / f"models/base/seed{seed}"
    write_model(model, tokenizer, seed=seed)
    if seed:  # two equal vectors, of which neither is ever the strict maximum
        network = load_model(model)
        with torch.no_grad():
            head_weight(network)[WORDS[1]] = head_weight(network)[WORDS[0]]
        save_model(network, model)
        made_from = {"tokenizer": identity(tokenizer, kind="tokenizer")}
        write_manifest(model, kind="model", settings={}, made_from=made_from, contents={})
    names, store = {"seed": str(seed)}, root / f"datastores/base/seed{seed}"
    called(model, model="base", **names)
    lm = {"tokens": tokens, "model": model}
    make_datastore(store, site=SITE, stride=4, dtype="float32", shard_mib=1, seed=seed, **lm)
    called(store, datastore="base", **names)
    made = {"models": [model], "datastores": [store], "queries": [], "neighbors": [], "tuned": []}
    every = {"tokens": None, "tokens_per_document": None, "stride": 4, "seed": 0}
    for split in SPLITS:
        queries = root / f"queries/base/seed{seed}/small/{split}"
        write_scored(queries, split=split, queries=every, **lm)
        made["queries"].append(called(queries, model="base", corpus="small", split=split, **names))
    for name, index in list(INDEXES.items())[: 1 if seed else 2]:
        at = make_index(root / f"indexes/base/seed{seed}/{name}", datastore=store, index=index)
        place, found = {"datastore": "base", "index": name, "corpus": "small", **names}, []
        for split, queries in zip(SPLITS, made["queries"], strict=True):
            folder = root / f"neighbors/base/seed{seed}/{name}/small/{split}"
            search = {"k": K, "block_queries": 64, "recall_sample": 8}
            find_neighbors(folder, datastore=store, index=at, queries=queries, **search)
            found.append(called(folder, split=split, **place))
        point = root / f"tuned/base/seed{seed}/{name}/small.json"
        tune_interpolation(
            Target(point, "f", place),
            queries=made["queries"][0],
            neighbors=found[0],
            grid=SETTINGS["baseline"]["grid"],
        )
        made["neighbors"] += found
        made["tuned"].append(point)
    return made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return what the workflow would have made, by the name of the input."""
    root = tmp_path_factory.mktemp("run")
    tokenizer = write_tokenizer(root / "tokenizer")
    lengths = {split: [7] * N_DOCUMENTS for split in SPLITS}
    tokens = write_tokens(root / "tokens", tokenizer, lengths=lengths)
    seeds = [write_lm(root, tokenizer, tokens, seed) for seed in SEEDS]
    made = {name: [path for one in seeds for path in one[name]] for name in seeds[0]}
    return made | {
        "alternatives": [score(root / "ruled_out/alternatives", made)],
        "certificates": [certify(root / "ruled_out/certificates", made["models"])],
    }


def score(output, made, settings=SETTINGS):
    score_alternatives(Target(output, "f"), inputs=made, settings=settings)
    return output


def certify(output, models):
    settings = SETTINGS["ruled_out"]["stolen_probabilities"]
    certify_output_vectors(Target(output, "f"), models=models, settings=settings)
    return output


@pytest.fixture(scope="module")
def table(inputs):
    return evaluate(inputs, SETTINGS)["table"]


def value(table, **names):
    return select(table, **names)["value"].item()


def of_seed(inputs, name, seed):
    return {path.name: path for path in inputs[name] if f"seed{seed}" in path.parts}


def scored_by(inputs, seed, split="test"):
    return np.load(of_seed(inputs, "queries", seed)[split] / "lm_log_probs.npy")


def test_every_hypothesis_is_a_row_tuned_on_validation_and_marked_on_test(table):
    changes = table[(table["metric"] == "perplexity_per_token_change_vs_lm")]
    found = set(changes[changes["seed"] == "0"][["method", "setting"]].itertuples(index=False))

    variants = {
        "knn_lm": [""],
        "sparsified_lm": [""],
        "clustered_datastore": ["3 clusters/", "12 clusters/"],
        "output_distances": [f"{SITE}/"],
        "two_metrics": [""],
        "lm_ensemble": [""],
    } | {method: [""] for method in ("control", *OTHER_TRAININGS)}
    mixed = {(method, setting) for method, setting in found if setting != "alone"}
    assert mixed == {
        (method, f"{variant}{way}")
        for method, some in variants.items()
        for variant in some
        for way in ("tuned", "tuned on test")
    }
    assert found - mixed == {(method, "alone") for method in ("control", *OTHER_TRAININGS)}
    assert "1" not in set(changes[changes["method"] == "two_metrics"]["seed"])


def test_what_is_tuned_on_the_reported_split_is_never_worse_there(table):
    levels = select(table, metric="perplexity_per_token")
    for (_, _), rows in levels[levels["seed"] != "all"].groupby(["method", "seed"]):
        by_setting = rows.set_index("setting")["value"]
        for setting in by_setting.index[by_setting.index.str.endswith("tuned on test")]:
            honest = by_setting[setting.removesuffix(" on test")]
            assert by_setting[setting] <= honest + 1e-9


def test_an_ensemble_of_two_lms_mixes_their_probabilities(inputs, table):
    first, second = (np.exp(scored_by(inputs, seed)) for seed in SEEDS)
    row = {"method": "lm_ensemble", "setting": "tuned", "seed": "0"}
    lmbda = value(table, metric="lmbda", **row)

    expected = np.exp(-np.log((1 - lmbda) * first + lmbda * second).mean())

    assert value(table, metric="perplexity_per_token", **row) == pytest.approx(expected)
    size = sum(p.numel() * 4 for p in load_model(inputs["models"][1]).parameters())
    costs = {"method": "lm_ensemble", "setting": "", "seed": "0"}
    assert value(table, metric="bytes_added", **costs) == size


def test_two_metrics_are_mixed_before_they_are_mixed_with_the_lm(inputs, table):
    probs = []
    queries = of_seed(inputs, "queries", 0)["test"]
    for index in INDEXES:
        (folder,) = [p for p in inputs["neighbors"] if {"seed0", index, "test"} <= {*p.parts}]
        (point,) = [read_tuned(p).point for p in inputs["tuned"] if {"seed0", index} <= {*p.parts}]
        found, targets = load_neighbors(folder), np.load(queries / "targets.npy")
        nearest = (found.distances[:, : point.k], found.values[:, : point.k])
        probs.append(np.exp(knn_log_probs(*nearest, targets, temperature=point.temperature)))
    row = {"method": "two_metrics", "setting": "tuned", "seed": "0"}
    weight, lmbda = (value(table, metric=name, **row) for name in ("weight_on_second", "lmbda"))
    lm = np.exp(scored_by(inputs, 0))

    mixed = (1 - weight) * probs[0] + weight * probs[1]
    nll = -np.log((1 - lmbda) * lm + lmbda * mixed)

    assert value(table, metric="perplexity_per_token", **row) == pytest.approx(np.exp(nll.mean()))
    levels = [
        value(table, metric="perplexity_per_token", method=m, setting=s, seed="0")
        for m, s in (("lm", ""), ("knn_lm", "tuned"))
    ]
    lm_nll, knn_nll = np.log(levels)
    added = value(table, metric="nats_per_token_vs_what_knn_adds", **row)
    assert added == pytest.approx((nll.mean() - knn_nll) - (knn_nll - lm_nll), abs=1e-7)


def test_a_share_of_the_gain_is_that_of_the_perplexities(table):
    def level(method, setting):
        row = {"method": method, "setting": setting, "seed": "1"}
        return value(table, metric="perplexity_per_token", **row)

    row = {"method": "clustered_datastore", "setting": "12 clusters/tuned", "seed": "1"}
    lm, knn, other = level("lm", ""), level("knn_lm", "tuned"), level(*[*row.values()][:2])
    expected = (lm - other) / (lm - knn)
    assert value(table, metric="share_of_knn_gain", **row) == pytest.approx(expected, rel=1e-6)


def test_of_two_equal_output_vectors_neither_is_outside(inputs, table):
    (folder,) = inputs["certificates"]
    how = [
        read_certificates(folder, seed=seed, model=model)
        for seed, model in zip(SEEDS, inputs["models"], strict=True)
    ]

    assert not np.isin(how[0], (How.INSIDE, How.UNDECIDED)).any()
    assert np.flatnonzero(how[1] == How.INSIDE).tolist() == list(WORDS)
    row = {"method": "stolen_probabilities", "setting": ""}
    assert value(table, metric="vectors_inside_hull", seed="1", **row) == 2
    assert value(table, metric="most_vectors_not_outside", seed="", **row) == 2
    targets = np.load(of_seed(inputs, "queries", 1)["test"] / "targets.npy")
    share = np.isin(targets, WORDS).mean()
    assert value(table, metric="targets_inside_hull", seed="1", **row) == pytest.approx(share)


def test_a_head_with_a_bias_is_another_question(inputs, monkeypatch):
    network = load_model(inputs["models"][0])
    network.lm_head.bias = torch.nn.Parameter(torch.zeros(VOCABULARY))
    monkeypatch.setattr(
        "knnlm.experiments.ruled_out.stolen_probabilities.load_model", lambda folder: network
    )

    with pytest.raises(ValueError, match="expected a head without bias"):
        head_without_bias(inputs["models"][0])


def test_with_one_lm_seed_the_ensemble_is_not_run(inputs, tmp_path):
    first = {name: [p for p in paths if "seed1" not in p.parts] for name, paths in inputs.items()}
    settings = SETTINGS | {"lm_seeds": [0]}
    first["alternatives"] = [score(tmp_path / "alternatives", first, settings)]

    table = evaluate(first, settings)["table"]

    assert "lm_ensemble" not in set(table["method"])
    claims = read_claims([ROOT / "workflow/experiments/ruled_out/claims.yaml"])
    config = {**settings, "scale": "cpu"}
    evidence = Evidence({"ruled_out": table}, {"ruled_out": "ruled_out"}, config)
    verdicts = evaluate_claims(claims, evidence).set_index("id")["verdict"]
    assert verdicts["lm_ensemble_above_knn"] == "not run"
    assert not (verdicts.drop("lm_ensemble_above_knn") == "not run").any()


def test_every_claim_finds_its_rows(table):
    claims = read_claims([ROOT / "workflow/experiments/ruled_out/claims.yaml"])
    evidence = Evidence({"ruled_out": table}, {"ruled_out": "ruled_out"}, {"scale": "cpu"})

    verdicts = evaluate_claims(claims, evidence)

    assert not (verdicts["verdict"] == "not run").any()
    found = verdicts.set_index("id")
    assert found.loc["no_stolen_probabilities", "verdict"] == "does not hold"  # two equal vectors


def test_the_figure_has_a_row_for_each_distribution_and_its_cost(table):
    with look():
        (axes,) = draw({"table": table}).axes

    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "kNN-LM"
    assert len(labels) == 7 + 1 + len(OTHER_TRAININGS)
    assert {"clustered datastore, 3 clusters", "LM of another seed"} <= {*labels}
    assert len(axes.texts) == 2 + 2 * len(labels)


def test_alternatives_of_another_lm_are_refused(inputs, tmp_path):
    (folder,) = inputs["alternatives"]
    other = tmp_path / "ruled_out/alternatives"
    shutil.copytree(folder, other)
    write_manifest(
        other,
        kind="alternatives",
        settings=SETTINGS["ruled_out"],
        made_from={"model of seed 0": "another"},
        contents={},
    )

    with pytest.raises(ArtifactError, match="model of seed 0"):
        evaluate({**inputs, "alternatives": [other]}, SETTINGS)


def test_a_killed_job_goes_on_with_the_next_file(inputs, tmp_path, monkeypatch):
    module = "knnlm.experiments.ruled_out.output_distances"
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}._mean_distance", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            score(tmp_path / "results/run/alternatives", inputs)
    made = {p: p.stat().st_ino for p in (tmp_path / "results/run/partial").rglob("*.np[yz]")}

    again = score(tmp_path / "results/run/alternatives", inputs)

    inodes = {path.stat().st_ino for path in again.rglob("*.np[yz]")}
    assert made
    assert set(made.values()) < inodes
    (first,) = inputs["alternatives"]
    for path in first.rglob("*.np[yz]"):
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"clustered_datastore": {"clusters": [200_000], "train_keys": 300_000}},
            r"clusters: expected at most as many clusters as the datastore 'base' has entries",
        ),
        (
            {"clustered_datastore": {"clusters": [4096], "train_keys": 4000}},
            r"train_keys: expected at least as many keys as clusters, 4,096, got 4,000",
        ),
        (
            {"sparsified_lm": {"k": [1, 3000]}},
            r"sparsified_lm.k: expected at most the vocabulary of 'base', 2,048 tokens, got 3,000",
        ),
        (
            {"output_distances": {"sites": ["attention_input_after_layer_norm"]}},
            r"output_distances.sites: expected sites whose hidden states are kept",
        ),
        (
            {"two_metrics": {"index": "ivfpq"}},
            r"two_metrics.index: expected an index of another metric than .* 'exact', l2",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_job(change, message):
    config, schema = with_experiments(
        yaml.safe_load((ROOT / "config.yaml").read_text()),
        yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
        read_experiments(ROOT).values(),
    )
    check(resolve(config, {}, schema))

    with pytest.raises(SettingsError, match=message):
        check(resolve(config, {"ruled_out": change}, schema))
