"""Every site of the keys is a kNN-LM of its own, compared with the LM and the best-known site."""

from scored_run_artifacts import SETTINGS, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.key_function.figure import draw
from knnlm.experiments.key_function.table import evaluate

SITES = {"base": "ffn_input_after_layer_norm", "of_output": "output_after_layer_norm"}


def test_each_site_is_a_row_and_is_compared_with_the_ffn_input_after_layer_norm(tmp_path):
    inputs = write_run(tmp_path, datastores=SITES, models=["base"], searched=300)
    stores = {name: {"model": "base", "site": s, "queries": 300} for name, s in SITES.items()}
    own = {"datastores": stores, "key_function": {"datastores": [*SITES]}}
    table = evaluate(inputs, SETTINGS | own)["table"]
    levels = select(table, metric="perplexity_per_token", seed="all")
    assert levels["setting"].tolist() == ["no datastore", *SITES.values()]
    compared = select(table, metric=f"nats_per_token_vs_{SITES['base']}", seed="0")
    assert (compared["setting"].item(), compared["n"].item()) == (SITES["of_output"], 300)
    assert draw({"table": table}).axes[0].get_xlabel() == "perplexity per token (test)"
