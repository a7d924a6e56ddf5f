"""What whole documents, stored for a cache, need."""

from dataclasses import replace

from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.pipeline import QUERIES_A_BLOCK, for_score_queries
from knnlm.plan.sizes import model_size, neighbors, queries, tokens

EXPONENTIAL = 500  # FLOPs in the time of one, with all that is done to a past position


def for_encode_documents(config: Settings, wildcards: Wildcards) -> Need:
    """Read validation and test whole, and the queries of test once more in short strides."""
    name, corpus = wildcards["model"], wildcards["corpus"]
    of_test = {**wildcards, "split": "test"}
    size, context = model_size(config, name), config["models"][name]["context"]
    count = sum(
        tokens(config, corpus, config["models"][name]["tokenizer"], split)
        for split in ("validation", "test")
    )
    strides = config["queries"]["stride"], config["continuous_cache"]["more_context_stride"]
    scored = queries(config, name, corpus, "test")
    read = context * (count / min(strides[0], context) + scored / strides[1])
    entry = FP32 * size.width + 26  # a state, and what describes a position
    return replace(
        for_score_queries(config, of_test),
        memory=FP32 * size.parameters + 2 * entry * min(count, QUERIES_A_BLOCK),
        disk=2 * (count + scored) * entry,
        flops=size.forward(read, span=context, scored=count + scored),
    )


def for_evaluate_continuous_cache(config: Settings, wildcards: Wildcards) -> Need:
    """Score every theta and size from stored states, and mix each with the LM and with kNN."""
    base, settings = config["baseline"], config["continuous_cache"]
    name = config["datastores"][base["datastore"]]["model"]
    of_test = {**base, "corpus": config["corpus"], "split": "test"}
    scored = queries(config, name, config["corpus"], "test")
    thetas, sizes = settings["thetas"]["count"], settings["sizes"]
    grid = 8 * scored * thetas * len(sizes)
    past = scored * thetas * max(sizes)
    return Need(
        memory=6 * neighbors(config, of_test) + 2 * grid,
        flops=len(config["lm_seeds"]) * EXPONENTIAL * past,
    )
