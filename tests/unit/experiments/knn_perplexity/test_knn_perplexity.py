"""The experiment on a small corpus whose artifacts are written by hand."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scored_run_artifacts import (
    BASELINE,
    CORPUS,
    FIRST_WORD,
    LENGTH,
    N_DOCUMENTS,
    N_WORDS,
    SEEDS,
    SETTINGS,
    WORDS,
    write_queries,
    write_run,
    write_text_and_tokens,
)

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import COLUMNS, read_table, select, write_table
from knnlm.evidence.token_classes import COUNT_BINS
from knnlm.experiments.knn_perplexity.classes import classes_of
from knnlm.experiments.knn_perplexity.figure import draw
from knnlm.experiments.knn_perplexity.table import ScoredSeed, evaluate
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.tuned_points import tuned_points
from knnlm.runtime.artifacts import ArtifactError, write_manifest


def of(folders, names, split=""):
    """Return the folders of these names, of a split or of all."""
    named = [folder for folder in folders if f"/{names}/" in str(folder)]
    return [folder for folder in named if str(folder).endswith(split)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def tables(inputs):
    return evaluate(inputs, SETTINGS)


@pytest.fixture(scope="module")
def table(tables):
    return tables["table"]


METRIC = "nats_per_token_vs_lm"
EXACT = ("base/seed1", "base/seed1/exact")
OTHER_OPTIMUM = ("base/seed1", "base/seed1/ivfpq")  # of which test has another than validation


def value(table, **names):
    return select(table, **names)["value"].item()


def test_the_table_comes_back_as_written_and_twice_the_same(inputs, table, tmp_path):
    write_table(tmp_path / "first.csv", table)
    write_table(tmp_path / "second.csv", evaluate(inputs, SETTINGS)["table"])

    assert tuple(read_table(tmp_path / "first.csv").columns) == COLUMNS
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


def test_lm_perplexity_is_that_of_the_stored_log_probs(inputs, table):
    (queries,) = of(inputs["queries"], "base/seed0", "test")
    log_probs = np.load(queries / "lm_log_probs.npy")

    n_words = N_DOCUMENTS * (N_WORDS + 1)  # line ends are words
    for metric, count in {
        "token": n_words,
        "word": n_words,
        "raw_word": N_DOCUMENTS * N_WORDS,
    }.items():
        actual = value(table, method="lm", seed="0", metric=f"perplexity_per_{metric}")
        assert actual == pytest.approx(np.exp(-log_probs.sum() / count), rel=1e-9)


def test_the_tuned_row_scores_test_at_the_settings_that_validation_chose(inputs, table):
    names = {"method": "knn_lm", "setting": "exact/tuned", "seed": "0"}
    chosen = select(table, **names, split="validation")
    settings = chosen.set_index("metric")["value"]
    (queries,) = of(inputs["queries"], "base/seed0", "test")
    (found,) = of(inputs["neighbors"], "base/seed0/exact", "test")
    block = np.load(found / "block-00000.npz")
    k = int(settings["k"])

    knn = knn_log_probs(
        block["distances"][:, :k],
        block["values"][:, :k],
        np.load(queries / "targets.npy"),
        temperature=settings["temperature"],
    )
    mixed = mix_log_probs(np.load(queries / "lm_log_probs.npy"), knn, settings["lmbda"])

    actual = value(table, **names, metric="perplexity_per_token")
    assert actual == pytest.approx(np.exp(-mixed.mean()), rel=1e-9)
    assert settings["temperature"] == pytest.approx(
        settings["temperature_relative"] * settings["mean_squared_distance"], rel=1e-9
    )


def best_by_hand(inputs, place, split):
    """Return k, temperature and lmbda with the least nll on a split."""
    nll = nll_by_hand(inputs, place, split)
    return min(nll, key=nll.get)


def nll_by_hand(inputs, place, split):
    """Return the mean nll on a split by k, temperature and lmbda, by the definition."""
    model, index = place
    (queries,) = of(inputs["queries"], model, split)
    (found,) = of(inputs["neighbors"], index, split)
    block = np.load(found / "block-00000.npz")
    lm = np.exp(np.load(queries / "lm_log_probs.npy"))
    hits = block["values"] == np.load(queries / "targets.npy")[:, None]
    distances = block["distances"].astype(np.float64)
    unit, nll = distances.mean(), {}
    for k, share in product((1, 2, 8), np.geomspace(0.05, 5.0, 5)):
        weights = np.exp(-distances[:, :k] / (share * unit))
        knn = (weights * hits[:, :k]).sum(axis=1) / weights.sum(axis=1)
        for lmbda in np.linspace(0.05, 0.95, 10):
            mixed = (1 - lmbda) * lm + lmbda * knn
            nll[k, share * unit, lmbda] = -np.log(mixed).mean()
    return nll


@pytest.mark.parametrize("index", ["exact", "ivfpq"])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_tuned_is_the_best_on_validation_by_brute_force(inputs, table, seed, index):
    place = (f"base/seed{seed}", f"base/seed{seed}/{index}")

    names = {"method": "knn_lm", "seed": str(seed), "split": "validation"}
    rows = select(table, setting=f"{index}/tuned", **names)

    tuned = rows.set_index("metric")["value"]
    expected = best_by_hand(inputs, place, "validation")
    assert tuned[["k", "temperature", "lmbda"]].tolist() == pytest.approx(expected)


def test_test_would_have_chosen_another_k_temperature_and_lmbda(inputs):
    """What makes the test before this one fail if a point were tuned on test."""
    on = {split: best_by_hand(inputs, OTHER_OPTIMUM, split) for split in ("validation", "test")}

    assert all(a != pytest.approx(b) for a, b in zip(*on.values(), strict=True))


def test_the_published_settings_are_scored_as_printed_and_at_the_tuned_temperature(inputs):
    published = {"k": 2, "lmbda": 0.25, "temperature": 1.0}
    table = evaluate(inputs, SETTINGS | {"baseline": BASELINE | {"published": published}})["table"]
    model, index = OTHER_OPTIMUM
    (queries,) = of(inputs["queries"], model, "test")
    (found,) = of(inputs["neighbors"], index, "test")
    block = np.load(found / "block-00000.npz")
    targets, lm = np.load(queries / "targets.npy"), np.load(queries / "lm_log_probs.npy")
    tuned = tuned_points(inputs["tuned"])["base", 1, "ivfpq", CORPUS]
    assert tuned.k != 2

    names = {"seed": "1", "metric": "nats_per_token_vs_lm"}
    temperatures = {"published": 1.0, "published_at_tuned_temperature": tuned.temperature}
    for setting, temperature in temperatures.items():
        nearest = (block["distances"][:, :2], block["values"][:, :2])
        knn = knn_log_probs(*nearest, targets, temperature=temperature)
        expected = (lm - np.logaddexp(np.log(0.75) + lm, np.log(0.25) + knn)).mean()
        found_here = value(table, **names, setting=f"ivfpq/{setting}")
        assert found_here == pytest.approx(expected, rel=1e-9)


def test_differences_to_lm_and_control_add_up(table):
    names = {"seed": "0", "split": "test"}
    knn = names | {"method": "knn_lm", "setting": "exact/tuned"}

    to_lm = value(table, **knn, metric="nats_per_token_vs_lm")
    to_control = value(table, **knn, metric="nats_per_token_vs_control")
    control = select(table, **names, method="control", setting="")
    control_to_lm = value(control, metric="nats_per_token_vs_lm")

    assert to_lm == pytest.approx(to_control + control_to_lm, rel=1e-9)
    assert control["model"].unique().tolist() == ["longer"]


def test_the_control_s_own_knn_lm_is_compared_with_everything_on_the_same_tokens(inputs, table):
    names = {"seed": "0", "split": "test", "setting": "exact/tuned"}
    own = select(table, **names, method="knn_control")

    tuned = tuned_points(inputs["tuned"])["longer", 0, "exact", CORPUS].point
    (queries,) = of(inputs["queries"], "longer/seed0", "test")
    (found,) = of(inputs["neighbors"], "longer/seed0/exact", "test")
    block = np.load(found / "block-00000.npz")
    targets, lm = np.load(queries / "targets.npy"), np.load(queries / "lm_log_probs.npy")
    nearest = (block["distances"][:, : tuned.k], block["values"][:, : tuned.k])
    knn = knn_log_probs(*nearest, targets, temperature=tuned.temperature)
    nll = -mix_log_probs(lm, knn, tuned.lmbda)
    assert own["model"].unique().tolist() == ["longer"]
    assert value(own, metric="perplexity_per_token") == pytest.approx(np.exp(nll.mean()), rel=1e-9)
    against = value(own, metric="nats_per_token_vs_control")
    assert against == pytest.approx((nll + lm).mean(), rel=1e-9)
    knn_lm = value(table, **names, method="knn_lm", metric="nats_per_token_vs_control")
    difference = value(own, metric="nats_per_token_vs_knn_lm")
    assert difference == pytest.approx(against - knn_lm, rel=1e-9)


def test_a_control_of_one_seed_has_rows_of_that_seed_alone(inputs):
    one = BASELINE | {"control": BASELINE["control"] | {"seeds": [1]}}

    table = evaluate(inputs, SETTINGS | {"baseline": one})["table"]

    for method in ("control", "knn_control"):
        assert set(select(table, method=method)["seed"]) == {"1"}
    against = table[table["metric"].str.endswith("_vs_control")]
    assert set(against["seed"]) == {"1"}
    assert "all" in set(select(table, method="knn_lm")["seed"])


@pytest.mark.parametrize("family", ["shape", "fact told"])
def test_the_gains_of_classes_that_part_the_tokens_add_up_to_the_whole(table, family):
    names = {"seed": "0", "method": "knn_lm", "metric": "nats_per_token_vs_lm"}
    rows = select(table, **names)
    parts = rows[rows["setting"].str.contains(f"exact/tuned/{family}: |exact/tuned/fact: none")]
    if family == "shape":
        parts = parts[~parts["setting"].str.contains("fact")]

    whole = select(rows, setting="exact/tuned")
    assert parts["n"].sum() == whole["n"].item()
    total = (parts["value"] * parts["n"]).sum()
    assert total == pytest.approx(whole["value"].item() * whole["n"].item(), rel=1e-9)


def test_a_class_is_that_of_the_target_and_its_count_is_that_of_train(tmp_path):
    text, tokens = write_text_and_tokens(tmp_path)
    names = {"model": "base", "seed": "0", "split": "test"}
    queries = load_queries(write_queries(tmp_path, tokens, **names))
    counts = dict(zip(WORDS, (1, 3, 11, 51, 301, 0, 2), strict=True))  # on test all have about 57
    told = " ".join(word for word, count in counts.items() for _ in range(count))
    (text / "train.txt").write_text(told)

    masks = classes_of(text, tokens, queries)

    targets = np.array([*[""] * FIRST_WORD, *WORDS])[queries.targets]
    for (label, last), first in zip(COUNT_BINS.items(), (0, 1, 3, 11, 51), strict=True):
        inside = [word for word, count in counts.items() if first <= count <= last]
        np.testing.assert_array_equal(masks[f"train count: {label}"], np.isin(targets, inside))
    np.testing.assert_array_equal(masks["train count: > 300"], targets == "the")
    np.testing.assert_array_equal(masks["shape: number"], targets == "1815")
    np.testing.assert_array_equal(masks["shape: line end"], targets == "")
    tells = (queries.positions + 1) % LENGTH == 1  # the first word of a document
    np.testing.assert_array_equal(~masks["fact: none"], tells)


def test_rare_words_are_compared_with_frequent_ones_where_train_has_both(inputs, tmp_path):
    text, tokens = write_text_and_tokens(tmp_path)
    counts = dict(zip(WORDS, (1, 301, 11, 51, 302, 0, 2), strict=True))
    told = " ".join(word for word, count in counts.items() for _ in range(count))
    (text / "train.txt").write_text(told)
    run = ScoredRun.of("e", inputs, SETTINGS)
    (queries,) = of(inputs["queries"], "base/seed0", "test")
    of_seed = ScoredSeed.of(run, 0, classes_of(text, tokens, load_queries(queries)))

    rows = {row["setting"]: row for row in of_seed.rows() if row["metric"] == METRIC}

    rare, frequent = (
        rows[f"exact/tuned/train count: {name}"]["value"] for name in ("1-2", "> 300")
    )
    row = rows["exact/tuned/train count: 1-2 minus train count: > 300"]
    assert row["value"] == pytest.approx(rare - frequent, rel=1e-9)
    assert row["n"] == sum(
        rows[f"exact/tuned/train count: {name}"]["n"] for name in ("1-2", "> 300")
    )


def test_facts_are_told_apart_by_whether_train_tells_them(table):
    names = {"seed": "0", "method": "control", "metric": "nats_per_token_vs_lm"}

    for kind in ("fact kind: name, told", "fact kind: name, not told"):
        assert select(table, **names, setting=kind)["n"].item() == N_DOCUMENTS // 2
    shares = select(table, metric="facts_told_in_train")
    assert shares["value"].tolist() == [0.5, 0.5]


def test_references_cover_whole_documents(table):
    names = {"method": "reference", "metric": "perplexity_per_token"}

    row = select(table, **names, setting="has_read_train/whole documents")

    assert row["n"].item() == N_DOCUMENTS * (LENGTH - 1)
    assert row["value"].item() == pytest.approx(np.exp(8.0 / (LENGTH - 1)), rel=1e-9)


def test_hits_grow_with_k_and_recall_is_that_of_the_search(table):
    names = {"seed": "1", "setting": "ivfpq"}

    hits = [value(table, **names, metric=f"hits_at_{k}") for k in (1, 2, 8)]

    assert 0 < hits[0] < hits[1] < hits[2] <= 1
    assert value(table, **names, split="test", metric="recall") == 0.75


def test_counts_say_what_the_numbers_rest_on(table):
    counts = {
        metric: value(table, metric=metric)
        for metric in ("queries", "documents", "lm_seeds", "datastore_entries")
    }

    assert counts == {
        "queries": N_DOCUMENTS * (LENGTH - 1),
        "documents": N_DOCUMENTS,
        "lm_seeds": len(SEEDS),
        "datastore_entries": N_DOCUMENTS * LENGTH - 1,
    }


def test_seeds_are_summed_up_with_an_interval_over_seeds(table):
    names = {"method": "lm", "metric": "perplexity_per_token"}

    mean = select(table, **names, seed="all")

    single = [value(table, **names, seed=seed) for seed in ("0", "1")]
    assert mean["value"].item() == pytest.approx(np.mean(single), rel=1e-12)
    assert mean["ci_low"].item() < mean["value"].item() < mean["ci_high"].item()
    assert mean["n"].item() == 2


def test_one_seed_of_a_natural_corpus_has_no_rows_over_seeds_of_facts_or_of_readers(tmp_path):
    inputs = write_run(tmp_path, seeds=(3,), generated=False)
    baseline = BASELINE | {"control": {"datastore": "longer", "seeds": [3]}}
    table = evaluate(inputs, SETTINGS | {"lm_seeds": [3], "baseline": baseline})["table"]

    assert set(table["seed"]) == {"3", ""}
    assert set(table["method"]) == {"lm", "control", "knn_lm", "knn_control", ""}
    assert not table["setting"].str.contains("fact").any()


def test_curves_pass_through_the_tuned_point_which_is_their_lowest(tables):
    curves = select(tables["grid"], method="knn_lm", seed="0")
    tuned = select(curves, setting="exact/tuned").iloc[0]

    for varied in ("k", "temperature", "lmbda"):
        curve = select(curves, setting=f"exact/over {varied}")
        others = [name for name in ("k", "temperature", "lmbda") if name != varied]
        assert curve["value"].min() == tuned["value"]
        assert (curve[others] == tuned[others]).all(axis=None)
        assert curve[varied].is_monotonic_increasing


def test_retuned_at_each_k_the_knn_lm_has_its_best_on_validation_by_brute_force(inputs, tables):
    on_validation = nll_by_hand(inputs, EXACT, "validation")
    grid = select(tables["grid"], seed="1", setting="exact/over k, retuned")
    levels = select(grid, metric="perplexity_per_token").set_index("k")["value"]
    changes = select(grid, metric="perplexity_per_token_change_vs_smallest_k").set_index("k")

    best = {
        k: min(nll for (of_k, *_), nll in on_validation.items() if of_k == k) for k in (1, 2, 8)
    }
    assert levels.to_dict() == pytest.approx({k: np.exp(nll) for k, nll in best.items()})
    expected = {k: 100 * np.expm1(nll - best[1]) for k, nll in best.items()}
    assert changes["value"].to_dict() == pytest.approx(expected, abs=1e-9)
    at_8 = changes.loc[8]
    assert at_8["ci_low"] < at_8["value"] < at_8["ci_high"]
    assert (changes.loc[1, ["value", "ci_low", "ci_high"]] == 0).all()


def test_levels_of_validation_have_the_intervals_of_resampled_documents(inputs, tables):
    curves = select(tables["grid"], seed="0", metric="perplexity_per_token")
    lm = load_queries(*of(inputs["queries"], "base/seed0", "validation"))
    document = np.unique(lm.documents, return_inverse=True)[1]
    nll = np.bincount(document, weights=-lm.lm_log_probs)
    counts = np.bincount(document)
    draws = np.random.default_rng(1).integers(len(counts), size=(4000, len(counts)))
    means = nll[draws].sum(1) / counts[draws].sum(1)
    expected = np.exp(np.quantile(means, [0.025, 0.975]))
    level = select(curves, method="lm").iloc[0]

    assert (curves["ci_low"] < curves["value"]).all()
    assert (curves["value"] < curves["ci_high"]).all()
    assert level[["ci_low", "ci_high"]].to_list() == pytest.approx(list(expected), rel=0.03)


def test_the_figure_is_drawn_from_the_curves_alone(tables, tmp_path):
    write_table(tmp_path / "grid.csv", tables["grid"])

    for name in ("a", "b"):
        with look():
            figure = draw({"grid": read_table(tmp_path / "grid.csv")})
            save_figure(figure, svg=tmp_path / f"{name}.svg", png=tmp_path / f"{name}.png")

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[2] == "k, number of neighbors"


def test_the_curves_start_where_tuning_on_validation_ended(inputs, tables):
    tuned = tuned_points(inputs["tuned"])["base", 0, "exact", CORPUS]

    curve = select(tables["grid"], seed="0", setting="exact/tuned")

    assert curve["value"].item() == pytest.approx(np.exp(tuned.nll), rel=1e-9)
    assert curve["temperature"].item() == tuned.temperature_relative


def test_a_run_without_a_control_has_every_row_but_the_control_s(inputs, tables):
    alone = SETTINGS | {"baseline": BASELINE | {"control": None}}
    queries = of(inputs["queries"], "queries/base")

    without = evaluate({**inputs, "queries": queries}, alone)

    for name in ("table", "grid"):
        theirs = tables[name]
        of_control = theirs["method"].isin(["control", "knn_control"])
        of_control |= theirs["metric"].str.endswith("_vs_control")
        pd.testing.assert_frame_equal(without[name], theirs[~of_control].reset_index(drop=True))
    assert len(draw(without).axes[0].lines) == len(draw(tables).axes[0].lines) - 1


def test_tokens_of_another_corpus_are_an_error(inputs, tmp_path):
    text, _ = write_text_and_tokens(tmp_path)
    (text / "train.txt").write_text("other\n")
    write_manifest(text, kind="text", settings={}, made_from={}, contents={})

    with pytest.raises(ArtifactError, match="was made from another text"):
        evaluate({**inputs, "text": [text]}, SETTINGS)
