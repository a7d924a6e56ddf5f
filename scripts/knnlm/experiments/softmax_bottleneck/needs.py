"""What the projections on last layers and on heads need."""

from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.sizes import model_size, neighbors

UPDATES = 2000  # of a distribution, in all walks or for all heads
LOGIT = 400  # FLOPs in the time of a softmax or a KL with gradient, a logit


def for_project_on_heads(config: Settings, wildcards: Wildcards) -> Need:
    """Walk with Adam from every start, or solve the convex problem of every head."""
    settings, base = config["softmax_bottleneck"], config["baseline"]
    size = model_size(config, config["datastores"][base["datastore"]]["model"])
    found = neighbors(config, {"corpus": config["corpus"], "split": "test", **base})
    memory = FP32 * size.parameters + 24 * size.vocabulary * size.width + found / 10
    tile = 24 * FP32 * settings["tile"] * size.vocabulary
    logits = UPDATES * settings["positions"] * size.vocabulary
    flops = logits * (4 * size.width + LOGIT)
    return Need(gpu=True, memory=memory, gpu_memory=tile, flops=flops)


for_project_distributions = for_project_on_heads
