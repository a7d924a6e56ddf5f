"""What the search in shares of a datastore needs."""

import math

from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.pipeline import CODES, KMEANS_ROUNDS
from knnlm.plan.sizes import entries, queries

HALVES = 3  # an exact search in fp16 on a CPU takes as long as so many in fp32
KEPT = 28  # bytes of a neighbor of each list that is held


def for_search_shares(config: Settings, wildcards: Wildcards) -> Need:
    """One real search of the whole, one in fp16, and an index of each share, for both splits."""
    settings, search = config["approximate_search"], config["search"]
    store = config["baseline"]["datastore"]
    block, index = config["datastores"][store], config["indexes"][settings["index"]]
    count, _, size = entries(config, {"datastore": store})
    scored = [queries(config, block["model"], config["corpus"], s) for s in ("validation", "test")]
    asked = sum(min(count, settings["queries"] or math.inf) for count in scored)
    shares = sum(settings["shares"])
    keys = min(FP32 * count * size.width, search["keys_mib"] << 20)
    code = 8 + index.get("code_bytes", FP32 * size.width)
    sample = min(index["train_keys"], count) * size.width
    trained = 2 * KMEANS_ROUNDS * sample * (index["n_centroids"] + CODES) * len(settings["shares"])
    coded = 2 * shares * count * size.width * (index["n_centroids"] + CODES)
    probed = 6 * shares * index["n_probes"] / index["n_centroids"]
    compared = 2 * asked * count * size.width * (1 + HALVES + probed)
    return Need(
        gpu=True,
        memory=2 * keys + 1.5 * max(settings["shares"]) * count * code + KEPT * asked * search["k"],
        gpu_memory=(2 * keys + 3 * (search["scores_mib"] << 20)) * (config["scale"] != "cpu"),
        disk=(14 * len(settings["shares"]) + 5) * asked * search["k"],
        flops=trained + coded + compared,
    )
