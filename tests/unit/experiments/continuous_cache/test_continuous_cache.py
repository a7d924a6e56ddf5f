"""Whole documents are read once, and every cache is scored from the stored states."""

import logging
from pathlib import Path

import numpy as np
import pytest
import yaml
from lm_artifacts import MODEL, VOCABULARY, write_tokenizer, write_tokens
from scored_run_artifacts import CORPUS, SEEDS, SETTINGS, SPLITS, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.continuous_cache import documents as module
from knnlm.experiments.continuous_cache.checks import check
from knnlm.experiments.continuous_cache.documents import (
    CONTROL,
    MORE_CONTEXT,
    encode_documents,
    open_part,
    rows_of,
)
from knnlm.experiments.continuous_cache.figure import draw
from knnlm.experiments.continuous_cache.table import evaluate
from knnlm.lm.architecture import OUTPUT_AFTER
from knnlm.lm.model import create_model, save_model
from knnlm.lm.scoring import load_queries, score_queries
from knnlm.retrieval.cache import cache_log_probs
from knnlm.retrieval.mixture import mix_parts
from knnlm.runtime.artifacts import (
    ArtifactError,
    identity,
    read_manifest,
    save_array,
    write_manifest,
)
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.making import Target
from knnlm.runtime.settings import SettingsError, resolve

ROOT = Path(__file__).parents[4]
QUERIES = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
BLOCK = {"thetas": {"low": 0.5, "high": 8.0, "count": 3}, "sizes": [4, 2, 16]}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """An LM with random weights, and its tokens."""
    root = tmp_path_factory.mktemp("lm")
    tokenizer = write_tokenizer(root / "tokenizer")
    tokens = write_tokens(root / "tokens", tokenizer)
    folder = root / "model"
    folder.mkdir()
    save_model(create_model(MODEL, vocabulary_size=VOCABULARY, seed=0), folder)
    origin = {"tokenizer": identity(tokenizer, kind="tokenizer")}
    write_manifest(folder, kind="model", settings={}, made_from=origin, contents={})
    return {"model": folder, "tokens": tokens}


def encode(folder, lm, *, sizes=(4, 16), stride=1):
    target = Target(folder, "f", {"model": "base", "seed": "0", "corpus": CORPUS})
    encode_documents(target, **lm, queries=QUERIES, sizes=sizes, more_context_stride=stride)
    return folder


def test_whole_documents_have_the_states_and_scores_of_the_queries(lm, tmp_path):
    folder = encode(tmp_path / "documents", lm)
    for split in SPLITS:
        target = Target(tmp_path / f"queries/{split}", "f", {"split": split})
        score_queries(target, **lm, queries=QUERIES, sites=[OUTPUT_AFTER])
        queries, whole = load_queries(target.output), open_part(folder, split)

        rows = rows_of(whole, queries.positions)

        assert whole.n_queries == {"validation": 90, "test": 68}[split]  # every token but the first
        assert np.array_equal(whole.targets[rows], queries.targets)
        assert whole.lm_log_probs[rows] == pytest.approx(np.asarray(queries.lm_log_probs), abs=1e-5)
        found = whole.hidden(OUTPUT_AFTER)[rows]
        assert found == pytest.approx(np.asarray(queries.hidden(OUTPUT_AFTER)), abs=1e-5)


def test_the_control_scores_the_queries_with_all_the_context_that_there_is(lm, tmp_path):
    folder = encode(tmp_path / "documents", lm)
    target = Target(tmp_path / "queries", "f", {"split": "test"})
    score_queries(target, **lm, queries=QUERIES | {"stride": 1}, sites=[OUTPUT_AFTER])
    queries, control = load_queries(target.output), open_part(folder, CONTROL)

    assert np.array_equal(control.positions, queries.positions)
    assert np.array_equal(control.lm_log_probs, queries.lm_log_probs)
    contents = read_manifest(folder, kind="documents")["contents"]
    assert contents["left_context"] == {"lm": MODEL["context"] - 4, MORE_CONTEXT: 7}


def test_a_job_that_was_cut_off_reads_no_document_twice(lm, tmp_path, monkeypatch):
    score, scored = module.score_positions, []

    def cut_off(folder, *given, **settings):
        scored.append(folder.name)
        if scored == ["validation", "test"]:
            raise KeyboardInterrupt
        score(folder, *given, **settings)

    monkeypatch.setattr(module, "score_positions", cut_off)
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path / "documents", lm)
    encode(tmp_path / "documents", lm)
    monkeypatch.undo()

    assert scored == ["validation", "test", "test", CONTROL]
    whole = encode(tmp_path / "again", lm)
    for path in whole.rglob("*.npy"):
        cut = tmp_path / "documents" / path.relative_to(whole)
        assert cut.read_bytes() == path.read_bytes()


def test_documents_that_are_shorter_than_every_cache_stop_the_first_job(lm, tmp_path):
    with pytest.raises(ValueError, match=r"sizes to have one up to 50, .* of validation, got 60"):
        encode(tmp_path / "documents", lm, sizes=[100, 60])


def test_caches_that_no_document_fills_are_told_of(lm, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        encode(tmp_path / "documents", lm, sizes=[8, 64, 128])

    assert "no document of test has more than 40 positions, so caches of 64, 128" in caplog.text


def test_a_position_that_no_document_has_is_an_error(lm, tmp_path):
    whole = open_part(encode(tmp_path / "documents", lm), "test")

    with pytest.raises(ArtifactError, match="to have every scored position"):
        rows_of(whole, np.array([0, 40]))  # the token after position 40 begins a document


@pytest.mark.parametrize("stride", [64, 200])
def test_a_control_without_more_context_is_refused_before_any_job(stride):
    config, schema = with_experiments(
        yaml.safe_load((ROOT / "config.yaml").read_text()),
        yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
        read_experiments(ROOT).values(),
    )
    given = {"continuous_cache": {"more_context_stride": stride}}

    with pytest.raises(
        SettingsError, match=rf"more_context_stride: expected fewer .* got {stride}"
    ):
        check(resolve(config, given, schema))


def write_documents(root, queries):
    """Write random states of the positions that an LM scored, which are all, and a control."""
    first = queries["validation"]
    folder = root / first.parents[2].name / f"documents/base/{first.parents[1].name}/{CORPUS}"
    rng = np.random.default_rng(0)
    for part in (*SPLITS, CONTROL):
        theirs = queries["test" if part == CONTROL else part]
        for path in theirs.glob("*.npy"):
            save_array(folder / part / path.name, np.load(path))
        n = len(np.load(theirs / "positions.npy"))
        save_array(
            folder / part / f"{OUTPUT_AFTER}.npy", rng.normal(size=(n, 8)).astype(np.float32)
        )
    seed = first.parents[1].name.removeprefix("seed")
    described = load_made_from(first)
    write_manifest(
        folder,
        kind="documents",
        names={"model": "base", "seed": seed, "corpus": CORPUS},
        settings={},
        made_from=described,
        contents={"left_context": {"lm": 4, MORE_CONTEXT: 7}},
    )
    return folder


def load_made_from(folder):
    return yaml.safe_load((folder / "manifest.json").read_text())["made_from"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    given = write_run(root, models=["base"], datastores=["base"], indexes=["exact"])
    by_seed = {
        seed: {f.name: f for f in given["queries"] if f"seed{seed}" in f.parts} for seed in SEEDS
    }
    return given | {"documents": [write_documents(root, queries) for queries in by_seed.values()]}


@pytest.fixture(scope="module")
def tables(inputs):
    return evaluate(inputs, SETTINGS | {"continuous_cache": BLOCK})


def value(table, **names):
    return select(table, **names)["value"].item()


def test_a_cache_is_mixed_at_theta_size_and_weights_that_validation_chose(inputs, tables):
    tuned = {
        metric: value(tables["table"], method="cache", seed="1", metric=metric)
        for metric in ("theta", "cache_size", "weight_on_lm", "weight_on_cache")
    }
    (folder,) = (f for f in inputs["documents"] if "seed1" in f.parts)
    whole = open_part(folder, "test")
    arrays = whole.hidden(OUTPUT_AFTER), whole.targets, whole.documents
    found = cache_log_probs(
        *arrays,
        np.arange(whole.n_queries),
        thetas=[tuned["theta"]],
        sizes=[int(tuned["cache_size"])],
    )[0, 0]
    weights = np.array([tuned["weight_on_lm"], tuned["weight_on_cache"]])

    perplexity = value(
        tables["table"], method="cache", seed="1", split="test", metric="perplexity_per_token"
    )

    expected = np.exp(-mix_parts(np.stack([whole.lm_log_probs, found]), weights).mean())
    assert perplexity == pytest.approx(expected)


def test_the_cache_is_compared_with_lm_control_and_knn(tables):
    rows = select(tables["table"], split="test", seed="all")
    compared = {
        "more_context": ["lm", "knn_lm"],
        "cache": ["lm", "knn_lm", "more_context"],
        "knn_lm_cache": ["lm", "knn_lm", "more_context", "cache"],
    }
    assert value(rows, method="more_context", metric="least_left_context") == 7
    for method, others in compared.items():
        metrics = {*select(rows, method=method)["metric"]}
        assert {f"perplexity_per_word_change_vs_{other}" for other in others} <= metrics


def test_the_tuned_point_is_the_best_of_the_grid(tables):
    for method in ("cache", "knn_lm_cache"):
        rows = select(tables["grid"], method=method, seed="0", metric="perplexity_per_token")
        best = rows.loc[rows["value"].idxmin()]
        tuned = select(rows, setting="tuned")

        assert tuned["value"].item() == best["value"]
        assert select(rows, setting="over size")["size"].tolist() == [2, 4, 16]
        assert len(select(rows, setting="over theta")) == 3


def test_documents_of_another_lm_stop_the_evaluation(inputs):
    swapped = inputs["queries"]
    names = {"documents": inputs["documents"][:1], "queries": swapped}

    with pytest.raises(ArtifactError, match="seed 1"):
        evaluate(inputs | names, SETTINGS | {"continuous_cache": BLOCK})


def test_the_figure_has_a_level_a_method_and_a_curve_an_lm(tables):
    left, right = draw(tables).axes

    assert [tick.get_text() for tick in left.get_yticklabels()][2] == "LM + cache"
    assert len([line for line in right.lines if len(line.get_xdata()) == 3]) == 2 * len(SEEDS)
