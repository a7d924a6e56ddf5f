"""Every site of the keys is a kNN-LM of its own, compared with the LM and the best-known site."""

import numpy as np
import pytest
from scored_run_artifacts import SEEDS, SETTINGS, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.key_function.figure import draw
from knnlm.experiments.key_function.table import evaluate
from knnlm.experiments.shared.scored_run import ScoredRun

SITES = {"of_output": "output_after_layer_norm", "base": "ffn_input_after_layer_norm"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    inputs = write_run(folder, datastores=SITES, models=["base"], searched=300)
    stores = {name: {"model": "base", "site": s, "queries": 300} for name, s in SITES.items()}
    own = {"datastores": stores, "key_function": {"datastores": [*SITES]}}
    return inputs, SETTINGS | own


@pytest.fixture(scope="module")
def table(run):
    return evaluate(*run)["table"]


def test_each_site_is_a_row_and_is_compared_with_the_ffn_input_after_layer_norm(table):
    levels = select(table, metric="perplexity_per_token", seed="all")
    assert levels["setting"].tolist() == ["no datastore", *SITES.values()]
    compared = select(table, metric=f"nats_per_token_vs_{SITES['base']}", seed="0")
    assert (compared["setting"].item(), compared["n"].item()) == (SITES["of_output"], 300)
    assert draw({"table": table}).axes[0].get_xlabel() == "perplexity per token (test)"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_site_has_the_neighbors_and_the_tuned_point_of_its_own_datastore(run, table, seed):
    scored_run = ScoredRun.of("key_function", *run)
    scored = scored_run.scored(seed, positions=300)
    nll = {
        site: scored_run.retrieved(scored, datastore=name).nll.mean()
        for name, site in SITES.items()
    }

    rows = select(table, seed=str(seed), split="test", metric="perplexity_per_token")
    found = dict(zip(rows["setting"], np.log(rows["value"]), strict=True))
    metric = f"nats_per_token_vs_{SITES['base']}"
    difference = select(table, seed=str(seed), setting=SITES["of_output"], metric=metric)

    assert found == pytest.approx(nll | {"no datastore": scored.nll.mean()})
    expected = nll[SITES["of_output"]] - nll[SITES["base"]]
    assert difference["value"].item() == pytest.approx(expected)
