"""The whole DAG on tiny data: what the tables say, and what an edit makes run again."""

import json

import numpy as np
import pandas as pd
import pytest
from faults import contents
from workflow_project import TINY

from knnlm.evidence.tables import COLUMNS

RESULTS = "results/tiny"


@pytest.fixture
def table(finished):
    return pd.read_csv(finished.folder / RESULTS / "tables/knn_perplexity.csv")


def value(table, method, setting=None, *, metric="perplexity_per_token"):
    rows = table[(table.method == method) & (table.metric == metric) & (table.split == "test")]
    return rows[rows.setting == setting].value.iloc[0] if setting else rows.value.iloc[0]


def test_the_table_is_tidy_and_every_row_has_a_count(table):
    assert list(table.columns) == list(COLUMNS)
    assert (table.experiment == "knn_perplexity").all()
    assert (table.corpus == "gazetteer").all()
    assert table.n.notna().all()


def test_perplexities_come_with_an_interval_that_covers_them(table):
    rows = table[table.metric.str.startswith("perplexity_per") & table.ci_low.notna()]

    assert len(rows)
    assert (rows.ci_low <= rows.value).all()
    assert (rows.value <= rows.ci_high).all()


def test_the_lm_row_is_the_perplexity_of_its_stored_log_probabilities(finished, table):
    queries = finished.folder / RESULTS / "queries/base/seed0/gazetteer/test"
    log_probs = np.load(queries / "lm_log_probs.npy")

    assert value(table, "lm") == pytest.approx(np.exp(-log_probs.mean()), rel=1e-6)


def test_the_files_that_a_user_is_promised_are_there(finished):
    results = finished.folder / RESULTS

    for name in [
        "tables/knn_perplexity_grid.csv",
        "figures/knn_perplexity.svg",
        "figures/knn_perplexity.png",
        "tables/cost.csv",
        "tables/environment.json",
        "tables/settings.json",
    ]:
        assert (results / name).stat().st_size > 0
    settings = json.loads((results / "tables/settings.json").read_text())
    assert settings["run"] == "tiny"


def test_costs_are_counted_for_the_first_experiment_that_needs_a_step(finished):
    costs = pd.read_csv(finished.folder / RESULTS / "tables/cost.csv", keep_default_na=False)
    counted = costs.set_index(["rule", "wildcards"])[["paper", "experiment"]].apply(tuple, axis=1)

    assert counted["train_language_model", "base/seed0"] == ("chiang2024", "knn_perplexity")
    assert counted["train_language_model", "wide/seed0"] == ("chiang2024", "softmax_bottleneck")
    stores = [name for _, name in counted.index if name.startswith("key_ffn_after/")]
    assert len(stores) > 2
    for rule, name in counted.index:
        if name.startswith("key_ffn_after/"):
            assert counted[rule, name] == ("khandelwal2020", "key_function")


def test_a_finished_run_has_nothing_to_do(finished):
    assert finished.jobs(*TINY, "all") == set()


def test_another_number_of_parts_makes_the_same_bytes_and_leaves_none_of_them(finished, copied):
    (copied.folder / "more.yaml").write_text("datastores: {base: {parts: 5}}")
    made = [
        "datastores/base/seed0",
        "indexes/base/seed0/ivfpq",
        "neighbors/base/seed0/ivfpq/gazetteer/test",
        "neighbors/base/seed0/fused/gazetteer/test",
    ]
    folders = [f"{RESULTS}/{name}" for name in made]

    copied.snakemake("--configfile", TINY[0].split("=")[1], "more.yaml", "--", *folders)

    for rule in (
        "build_datastore_part/base/seed0",
        "search_fused_part/base/seed0/fused/gazetteer/test",
    ):
        assert (copied.folder / RESULTS / "logs" / rule / "part4.log").is_file()
    for folder in folders:
        assert contents(copied.folder / folder) == contents(finished.folder / folder)
    assert not [path for path in (copied.folder / RESULTS / "parts").rglob("*") if path.is_file()]


def test_the_fused_engine_has_the_perplexity_of_exact_search(table):
    exact, fused = (value(table, "knn_lm", f"{name}/tuned") for name in ("exact", "fused"))

    assert fused == pytest.approx(exact, rel=1e-6)


def test_touching_and_commenting_the_code_reruns_nothing(copied):
    for path in (copied.folder / "scripts").rglob("*.py"):
        path.touch()
    module = copied.folder / "scripts/knnlm/retrieval/interpolation.py"
    module.write_text(module.read_text() + "\n# a remark\n")

    assert copied.jobs(*TINY, "all") == set()


def test_an_edited_library_module_reruns_exactly_what_depends_on_it(copied):
    module = copied.folder / "scripts/knnlm/evidence/metrics.py"
    module.write_text(module.read_text() + "\n\nEDITED = True\n")

    jobs = copied.jobs(*TINY, "knn_perplexity")

    assert jobs == {"evaluate_knn_perplexity", "plot", "knn_perplexity"}


def test_an_edited_plot_reruns_one_figure(copied):
    module = copied.folder / "scripts/knnlm/experiments/knn_perplexity/figure.py"
    module.write_text(module.read_text() + "\n\nEDITED = True\n")

    jobs = copied.jobs(*TINY, "experiments")

    assert jobs == {"plot", "experiments"}


def test_a_changed_setting_reruns_what_uses_it(copied):
    (copied.folder / "more.yaml").write_text("lm_seeds: [0, 1]")

    jobs = copied.jobs("knn_perplexity", "--configfile", TINY[0].split("=")[1], "more.yaml")

    assert {"train_language_model", "search_neighbors", "evaluate_knn_perplexity"} <= jobs
    assert "build_corpus" not in jobs
