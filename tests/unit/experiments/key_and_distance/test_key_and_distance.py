"""Each key and distance is a row: mixed, alone and as an oracle, compared in pairs."""

import numpy as np
import pytest
from scored_run_artifacts import SETTINGS, write_run
from test_settings import settings_of

from knnlm.evidence.tables import select
from knnlm.experiments.key_and_distance.figure import draw
from knnlm.experiments.key_and_distance.table import best_lmbda, evaluate
from knnlm.runtime.settings import SettingsError

NAMES = ["att_l2", "att_ip", "ffn_l2", "ffn_ip"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    inputs = write_run(
        tmp_path_factory.mktemp("run"),
        seeds=(0,),
        models=["base"],
        datastores=["base", "of_output"],
        indexes=["exact", "exact_ip"],
        searched=300,
    )
    stores = {name: {"model": "base", "queries": 300} for name in ("base", "of_output")}
    block = {"ffn": "of_output", "indexes": {"l2": "exact", "ip": "exact_ip"}}
    own = {"lm_seeds": [0], "datastores": stores, "key_and_distance": block}
    return evaluate(inputs, SETTINGS | own)["table"]


def value(table, **names):
    return select(table, **names)["value"].item()


def test_each_key_and_distance_is_compared_with_all_others_and_the_lm(table):
    levels = select(table, method="knn_lm", metric="perplexity_per_token")
    tuned = [name for name in levels["setting"] if name.endswith("/tuned")]
    assert tuned == [f"{name}/tuned" for name in NAMES]
    for name in NAMES:
        metrics = set(
            table[(table["setting"] == f"{name}/tuned") & (table["method"] == "knn_lm")]["metric"]
        )
        for other in ["lm", *(o for o in NAMES if o != name)]:
            assert f"nats_per_token_vs_{other}" in metrics
        assert f"nats_per_token_vs_{name}" not in metrics


def test_temperatures_have_the_unit_of_their_distance(table):
    units = select(table, metric="temperature").set_index("setting")["unit"]
    assert units["att_l2/tuned"] == "squared distance"
    assert units["att_ip/tuned"] == "inner product"
    assert set(select(table, metric="mean_spread")["setting"]) == {
        "att_ip/tuned",
        "ffn_ip/tuned",
    }


def test_alone_is_infinite_where_a_target_has_no_neighbor(table):
    shares = select(table, metric="share_without_target")["value"]
    assert (shares > 0).any()
    for name in NAMES:
        names = {"method": "knn", "setting": f"{name}/tuned"}
        share = value(table, metric="share_without_target", **names)
        level = value(table, metric="perplexity_per_token", **names)
        assert np.isposinf(level) == (share > 0)
        found = select(table, metric="perplexity_where_found", **names)
        assert found["n"].item() == 300 - round(300 * share)
        assert np.isfinite(found["value"].item())


def test_the_oracle_is_at_most_either_and_lmbda_of_test_at_most_the_tuned_one(table):
    for name in NAMES:
        mixed, oracle = (
            value(table, method=method, setting=f"{name}/tuned", metric="perplexity_per_token")
            for method in ("knn_lm", "oracle")
        )
        assert oracle <= value(table, method="lm", metric="perplexity_per_token")
        of_test = value(
            table, method="knn_lm", setting=f"{name}/lmbda_of_test", metric="perplexity_per_token"
        )
        assert of_test <= mixed
        at_1, of_test_at_1 = (
            value(table, method="knn_lm", setting=f"{name}/{choice}", metric="perplexity_per_token")
            for choice in ("temperature_1", "temperature_1_lmbda_of_test")
        )
        assert of_test_at_1 <= at_1


def test_the_best_lmbda_is_that_of_a_search_by_hand():
    lm, knn = np.log([0.2, 0.5, 0.1]), np.array([np.log(0.9), -np.inf, np.nan])

    chosen = best_lmbda(lm, knn, [0.1, 0.3, 0.6])

    means = [  # a query without neighbors has the LM's probability
        np.mean(-np.log([0.2 * (1 - w) + 0.9 * w, 0.5 * (1 - w), 0.1])) for w in (0.1, 0.3, 0.6)
    ]
    assert chosen == [0.1, 0.3, 0.6][int(np.argmin(means))]


def test_the_figure_shows_the_mixture_and_the_oracle(table):
    panels = draw({"table": table}).axes

    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["att, L2", "att, IP", "ffn, L2", "ffn, IP"]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1], "the first row is at the top"
    change = value(
        table, method="oracle", setting="att_l2/tuned", metric="perplexity_per_token_change_vs_lm"
    )
    assert any(line.get_xdata()[0] == change for line in panels[2].lines)


def test_an_index_of_the_other_metric_is_refused():
    with pytest.raises(SettingsError, match=r"indexes\.ip: expected an index of the metric ip"):
        settings_of(key_and_distance={"indexes": {"ip": "exact"}})


def test_keys_of_another_lm_are_refused():
    with pytest.raises(SettingsError, match=r"ffn: expected a datastore of the baseline's LM, 'b"):
        settings_of(key_and_distance={"ffn": "longer"})
