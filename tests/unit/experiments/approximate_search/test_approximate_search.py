"""Every share, mask and score has its rows, compared in pairs, and settings that fit."""

import numpy as np
import pytest
from scored_run_artifacts import SETTINGS, write_masks, write_run
from test_settings import settings_of

from knnlm.evidence.tables import select
from knnlm.experiments.approximate_search.figure import draw
from knnlm.experiments.approximate_search.table import evaluate
from knnlm.runtime.settings import SettingsError

SHARES, SEARCHED = [0.1, 0.5], 200
BLOCK = {"exact": "exact", "index": "ivfpq", "shares": SHARES, "queries": SEARCHED}
MODES = ("approximate_approximate", "approximate_real", "real_real")
CHOICES = ("temperature_1", "temperature_1_lmbda_of_test", "tuned")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    inputs = write_run(root, seeds=(0,), models=["base"], datastores=["base"])
    inputs["masks"] = [write_masks(root, inputs, [*map(str, SHARES)], searched=SEARCHED)]
    stores = {"base": {"model": "base", "corpus": "made-up", "queries": None}}
    own = {"lm_seeds": [0], "datastores": stores, "approximate_search": BLOCK}
    return evaluate(inputs, SETTINGS | own)["table"]


def value(table, **names):
    return select(table, **names)["value"].item()


def test_every_share_mask_score_and_choice_has_a_perplexity(table):
    settings = set(select(table, method="knn_lm", metric="perplexity_per_token")["setting"])

    expected = {f"{s}/{m}/{c}" for s in (*SHARES, 1.0) for m in MODES for c in CHOICES}
    assert settings == expected | {f"1.0/half_half/{choice}" for choice in CHOICES}
    oracles = set(select(table, method="oracle", metric="perplexity_per_token")["setting"])
    assert oracles == {name for name in settings if not name.endswith("of_test")}


def test_differences_are_those_of_the_perplexities(table):
    for share, mode in ((0.1, "approximate_real"), (1.0, "half_half")):
        names = {"method": "knn_lm", "setting": f"{share}/{mode}/tuned"}
        change = value(table, metric="perplexity_per_token_change_vs_real_real", **names)
        ours, theirs = (
            value(table, metric="perplexity_per_token", method="knn_lm", setting=setting)
            for setting in (names["setting"], f"{share}/real_real/tuned")
        )
        assert change == pytest.approx(100 * (ours / theirs - 1))
    larger, smaller = (f"{share}/real_real/tuned" for share in (0.5, 0.1))
    names = {"method": "knn_lm", "metric": "perplexity_per_token"}
    ratio = value(table, setting=larger, **names) / value(table, setting=smaller, **names)
    metric = "perplexity_per_token_change_vs_smaller_share"
    change = value(table, method="knn_lm", setting=larger, metric=metric)
    assert change == pytest.approx(100 * (ratio - 1))


def test_lmbda_of_the_reported_split_is_never_worse_there(table):
    for share in (*SHARES, 1.0):
        for mode in MODES:
            names = {"method": "knn_lm", "metric": "perplexity_per_token"}
            tuned, of_test = (
                value(table, setting=f"{share}/{mode}/{choice}", **names) for choice in CHOICES[:2]
            )
            assert of_test <= tuned


def test_the_oracle_is_never_worse_than_the_lm(table):
    oracles = select(table, method="oracle", metric="perplexity_per_token")["value"]

    assert (oracles <= value(table, method="lm", metric="perplexity_per_token")).all()


def test_recalls_and_chosen_temperatures_stand_in_the_table(table):
    recalls = select(table, metric="recall")["setting"].tolist()
    temperatures = select(table, metric="temperature", split="validation")

    assert recalls == [f"{share}/approximate" for share in (*SHARES, 1.0)]
    at_1 = temperatures["setting"].str.endswith("/temperature_1")
    assert (temperatures[at_1]["value"] == 1).all()
    assert np.unique(temperatures["setting"]).size == len(temperatures)


def test_the_figure_shows_levels_and_what_each_choice_of_temperature_changes(table):
    levels, at_1, tuned = draw({"table": table}).axes

    assert [axes.get_title("left") for axes in (at_1, tuned)] == [
        "temperature 1",
        "temperature tuned",
    ]
    lines = [line for line in levels.lines if len(line.get_xdata()) == len(SHARES) + 1]
    assert len(lines) == 2
    drawn = {line.get_label(): len(line.get_xdata()) for line in tuned.lines[1:]}
    every = len(SHARES) + 1
    assert drawn == {
        "approximate mask and score": every,
        "approximate mask, real score": every,
        "real, in fp16": 1,
    }


BAD = {
    "shares that do not ascend": ({"shares": [0.05, 0.01]}, r"\.shares: expected ascending"),
    "index without full distances": (
        {"index": "ivf_flat"},
        r"\.index: expected an inverted file .* rescore: true.* got 'ivf_flat'",
    ),
    "index that is exact": ({"index": "exact"}, r"\.index: expected an inverted file"),
    "real neighbors that are not": ({"exact": "ivfpq"}, r"\.exact: expected an exact engine"),
    "inner product": ({"exact": "exact_ip"}, r"\.exact: expected an exact engine of the metric l2"),
    "fewer entries than k": (
        {"shares": [0.002, 0.05]},
        r"\.shares: expected at least search\.k = 1,024 entries .*, got 0\.002 of a text of",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_stop_before_any_job(case):
    changes, message = BAD[case]

    with pytest.raises(SettingsError, match=f"approximate_search{message}"):
        settings_of(approximate_search=changes)


def test_other_queries_than_those_of_the_datastore_are_refused():
    with pytest.raises(SettingsError, match=r"approximate_search\.queries: expected 500, .* 4000"):
        settings_of(datastores={"base": {"queries": 500}})


def test_shares_of_a_share_are_refused():
    with pytest.raises(SettingsError, match=r"expected a whole datastore .* at a share of 0\.5"):
        settings_of(datastores={"base": {"share": 0.5}}, experiments=["approximate_search"])
