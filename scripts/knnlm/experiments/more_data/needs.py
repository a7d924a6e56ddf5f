"""What the evaluation of more_data needs."""

from knnlm.plan import pipeline
from knnlm.plan.needs import NEIGHBOR, Need, Settings, Wildcards
from knnlm.plan.sizes import neighbors

TUNING_FLOPS = 200  # in the time that a temperature takes for a neighbor


def for_evaluate_more_data(config: Settings, wildcards: Wildcards) -> Need:
    """Hold the neighbors of two splits in all shares, and those in one; tune on each share."""
    own = config["more_data"]
    of = {"datastore": own["datastore"], "index": own["index"], "corpus": config["corpus"]}
    stored, found = 0.0, 0.0
    for split in ("validation", "test"):
        stored += pipeline.for_search_nested_shares(config, of | {"split": split}).disk
        found += neighbors(config, of | {"split": split})
    count = config["baseline"]["grid"]["temperatures"]["count"]
    shares = len(config["shares"][own["datastore"]])
    flops = TUNING_FLOPS * count * shares * found / NEIGHBOR
    return Need(memory=stored + 3 * found, flops=flops)
