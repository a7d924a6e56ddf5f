"""What the projections on last layers and on heads need."""

from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.sizes import model_size, neighbors

EVALUATIONS = 2000  # of a distribution, for all heads
WALKS = 4  # of each target by each optimizer: starts and directions of f, which has most
LOGIT = 400  # FLOPs in the time of a softmax or a KL with gradient, a logit


def for_project_distributions(config: Settings, wildcards: Wildcards) -> Need:
    """Walk with Adam from every start, as far as any walk may go."""
    settings = config["softmax_bottleneck"]
    short = settings["optimizers"].values()
    updates = WALKS * sum(adam["max_steps"] * len(adam["targets"]) for adam in short)
    long = settings["long"]
    return _passes(config, updates + 2 * len(long["lrs"]) * long["steps"])


def for_project_on_heads(config: Settings, wildcards: Wildcards) -> Need:
    """Solve the convex problem of every head."""
    return _passes(config, EVALUATIONS)


def _passes(config: Settings, n: int) -> Need:
    """Take every sampled distribution through the last layers and back, n times."""
    settings, base = config["softmax_bottleneck"], config["baseline"]
    size = model_size(config, config["datastores"][base["datastore"]]["model"])
    found = neighbors(config, {"corpus": config["corpus"], "split": "test", **base})
    memory = FP32 * size.parameters + 24 * size.vocabulary * size.width + found / 10
    tile = 24 * FP32 * settings["tile"] * size.vocabulary
    logits = n * settings["positions"] * size.vocabulary
    flops = logits * (4 * size.width + LOGIT)
    return Need(gpu=True, memory=memory, gpu_memory=tile, flops=flops)
