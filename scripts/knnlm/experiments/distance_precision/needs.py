"""What the evaluation of distance_precision needs."""

from knnlm.plan.needs import NEIGHBOR, Need, Settings, Wildcards
from knnlm.plan.sizes import neighbors

TUNING_FLOPS = 200  # in the time that a temperature takes for a neighbor


def for_evaluate_distance_precision(config: Settings, wildcards: Wildcards) -> Need:
    """Hold the neighbors of two splits three times; tune on each, for every LM seed."""
    of = {"datastore": config["baseline"]["datastore"], "corpus": config["corpus"]}
    found = sum(neighbors(config, of | {"split": split}) for split in ("validation", "test"))
    count = config["baseline"]["grid"]["temperatures"]["count"]
    flops = TUNING_FLOPS * count * 3 * len(config["lm_seeds"]) * found / NEIGHBOR
    return Need(memory=4 * found, flops=flops)
