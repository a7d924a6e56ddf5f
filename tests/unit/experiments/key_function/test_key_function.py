"""Every site of the keys is a kNN-LM of its own, compared with the LM and the best-known site."""

import numpy as np
import pytest
from scored_run_artifacts import CORPUS, SEEDS, SETTINGS, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.key_function.figure import draw
from knnlm.experiments.key_function.table import evaluate
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.tuning import nll_at, read_tuned

SITES = {"base": "ffn_input_after_layer_norm", "of_output": "output_after_layer_norm"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def table(root):
    inputs = write_run(root, datastores=SITES, models=["base"], searched=300)
    stores = {name: {"model": "base", "site": s, "queries": 300} for name, s in SITES.items()}
    own = {"datastores": stores, "key_function": {"datastores": [*SITES]}}
    return evaluate(inputs, SETTINGS | own)["table"]


def test_each_site_is_a_row_and_is_compared_with_the_ffn_input_after_layer_norm(table):
    levels = select(table, metric="perplexity_per_token", seed="all")
    assert levels["setting"].tolist() == ["no datastore", *SITES.values()]
    compared = select(table, metric=f"nats_per_token_vs_{SITES['base']}", seed="0")
    assert (compared["setting"].item(), compared["n"].item()) == (SITES["of_output"], 300)
    assert draw({"table": table}).axes[0].get_xlabel() == "perplexity per token (test)"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("datastore", SITES)
def test_each_site_is_scored_by_its_own_neighbors_at_its_own_tuned_point(
    root, table, datastore, seed
):
    place = f"{datastore}/seed{seed}/exact/{CORPUS}"
    queries = load_queries(root / f"queries/base/seed{seed}/{CORPUS}/test")
    found = load_neighbors(root / f"neighbors/{place}/test")
    point = read_tuned(root / f"tuned/{place}.json").point
    paired = (queries.targets[found.places], queries.lm_log_probs[found.places])

    nll = nll_at(point, found.distances, found.values, *paired)

    names = {"method": "knn_lm", "setting": SITES[datastore], "seed": str(seed)}
    level = select(table, **names, metric="perplexity_per_token")["value"].item()
    assert level == pytest.approx(np.exp(nll.mean()))
