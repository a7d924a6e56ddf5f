"""An LM on a second corpus, with that corpus's datastore and beside LMs that were trained there."""

import numpy as np
import pytest
from lm_artifacts import write_tokenizer
from retrieval_artifacts import write_datastore, write_model
from scored_run_artifacts import CORPUS, N_DOCUMENTS, SETTINGS, called, write_run

from knnlm.evidence.plotting import look
from knnlm.evidence.tables import select
from knnlm.experiments.domain_adaptation.curves import Curve
from knnlm.experiments.domain_adaptation.figure import draw
from knnlm.experiments.domain_adaptation.table import evaluate
from knnlm.experiments.shared.cost import flops_of_key, flops_of_model
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.lm.model import load_model
from knnlm.runtime.artifacts import read_manifest, write_manifest

ENTRIES, CONTEXT, STRIDE, READ = 400, 8, 4, 160
OWN = {
    "home": "base",
    "datastore": "adapting",
    "trained_there": "longer",
    "fine_tuned": ["base", "longer"],  # of the models that were scored `longer` has the least nll
    "published": {"k": 8, "lmbda": 0.65, "temperature": 1.0},
}


@pytest.fixture(scope="module")
def settings():
    store = {"model": "base", "corpus": CORPUS, "stride": STRIDE}
    return SETTINGS | {
        "domain_adaptation": OWN,
        "datastores": {"base": store, "adapting": store},
        "indexes": {"exact": {"engine": "exact"}},
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    run = write_run(root, datastores=("base", "adapting"), seeds=(0,), indexes=("exact",))
    tokenizer = write_tokenizer(root / "tokenizer")
    models = [write_model(root / f"models/{name}/seed0", tokenizer) for name in ("base", "longer")]
    for folder in models:
        origin = read_manifest(folder, kind="model")["made_from"]
        write_manifest(
            folder, kind="model", settings={}, made_from=origin, contents={"tokens": READ}
        )
        called(folder, model=folder.parent.name, seed="0")
    keys = np.zeros((ENTRIES, 16), np.float16)
    run["datastore"] = [write_datastore(root / "datastores/adapting/seed0", keys)]
    home = {f"home_{name}": run[name] for name in ("queries", "neighbors", "tuned")}
    return run | home | {"models": models}


@pytest.fixture(scope="module")
def tables(inputs, settings):
    return evaluate(inputs, settings)


def level(table, **names):
    return select(table, metric="perplexity_per_token", **names)["value"].item()


def test_every_method_stands_on_both_splits_and_is_compared_in_pairs(tables):
    table = tables["table"]
    for split in ("validation", "test"):
        lm, there = (level(table, split=split, method=m) for m in ("lm", "in_domain_lm"))
        knn = level(table, split=split, method="knn_lm", setting="exact/tuned")
        for rival, its in {"lm": lm, "in_domain_lm": there, "fine_tuned": there}.items():
            metric = f"perplexity_per_token_change_vs_{rival}"
            change = select(table, split=split, setting="exact/tuned", metric=metric)
            assert change["value"].item() == pytest.approx(100 * (knn / its - 1))
            assert change["ci_low"].item() < change["value"].item() < change["ci_high"].item()


def test_validation_chooses_the_learning_rate_of_the_fine_tuning(tables):
    table = tables["table"]
    tried = table[table["setting"].str.startswith("tried: ")]
    assert len(tried) == 2
    least = tried.loc[tried["value"].idxmin()]

    assert least["model"] == "longer"
    assert level(table, split="test", method="fine_tuned", setting="") == pytest.approx(
        level(table, split="test", method="in_domain_lm")
    )


def test_the_curve_begins_at_the_lm_and_its_least_point_is_the_best_lmbda(tables):
    table, grid = tables["table"], tables["grid"]
    for domain in ("in domain", "out of domain"):
        curve = select(grid, setting=f"{domain}/over lmbda")
        best = select(table, setting=domain, metric="best_lmbda").iloc[0]
        tuned = select(table, setting=f"{domain}/tuned", metric="lmbda")["value"].item()
        inner = curve[curve["lmbda"] > 0]
        assert curve["lmbda"].iloc[0] == 0
        assert curve["value"].iloc[0] == pytest.approx(
            level(table, split="validation", method="lm")
        )
        assert best["value"] == pytest.approx(inner.loc[inner["value"].idxmin(), "lmbda"])
        assert best["value"] == pytest.approx(tuned)
        assert best["ci_low"] <= best["value"] <= best["ci_high"]


def test_the_interval_of_the_best_lmbda_is_that_of_resampled_documents(inputs, settings):
    run = ScoredRun.of("domain_adaptation", inputs, settings)
    scored = run.scored(0, "validation")
    curve = Curve("in domain", run.retrieved(scored, datastore="base"))
    nlls, grid = np.array(curve.nlls()), np.array(curve.lmbdas)
    draws = scored.text.bootstrap._draws
    documents = np.unique(scored.queries.documents, return_inverse=True)[1]

    best = []
    for draw_of in draws:  # every token counts as often as its document was drawn
        weights = draw_of[documents]
        best.append(grid[np.argmin(nlls @ weights)])

    row = curve.best()
    assert draws.shape[1] == N_DOCUMENTS
    assert row["ci_low"] == pytest.approx(np.quantile(best, 0.025))
    assert row["ci_high"] == pytest.approx(np.quantile(best, 0.975))


def test_flops_are_those_of_keys_searches_and_updates(inputs, tables):
    table, lm = tables["table"], load_model(inputs["models"][0])
    found = {
        metric: select(table, metric=metric)["value"].item()
        for metric in ("building_flops", "searching_flops", "training_flops")
    }
    n_queries = sum(
        select(table, metric="perplexity_per_token", split=split)["n"].iloc[0]
        for split in ("validation", "test")
    )

    assert found["building_flops"] == ENTRIES * flops_of_key(lm) * CONTEXT / STRIDE
    assert found["searching_flops"] == n_queries * ENTRIES * 2 * 16
    assert found["training_flops"] == READ * flops_of_model(lm).training
    share = select(table, metric="share_of_retrieval_flops")["value"].item()
    spent = found["building_flops"] + found["searching_flops"]
    assert share == pytest.approx(100 * found["training_flops"] / spent)


def test_the_figure_has_a_panel_a_domain(tables):
    with look():
        figure = draw(tables)

    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"in domain: {CORPUS}", f"out of domain: {CORPUS}"]
    assert [len(axes.get_lines()) for axes in figure.axes] == [3, 5]  # curve, dot and levels
