"""What the projections on last layers and on heads need."""

from knnlm.plan.needs import FP32, LOGIT, Config, Need, Wildcards
from knnlm.plan.shapes import Shape, shape_of_model
from knnlm.plan.sizes import neighbors

SETTLED = 50  # updates until the paper's walk settles: 34 to 69 at the scale `cpu`
EVALUATIONS = 6  # of the convex problem, for each dimension of a head, double ones included


def _projected(config: Config) -> tuple[Shape, float, float]:
    """Return the LM's shape, bytes of a tile of distributions, and those of the neighbors."""
    found = {"corpus": config["corpus"], "split": "test", **config["baseline"]}
    shape = shape_of_model(config, config["datastores"][found["datastore"]]["model"])
    tile = 24 * FP32 * config["softmax_bottleneck"]["tile"] * shape.vocabulary
    return shape, tile, neighbors(config, found)


def project_distributions(config: Config, wildcards: Wildcards) -> Need:
    """Walk from every start in both directions with Adam, step by step."""
    (shape, tile, found), settings = _projected(config), config["softmax_bottleneck"]
    steps = 4 * sum(min(SETTLED, block["max_steps"]) for block in settings["optimizers"].values())
    if wildcards["last_layers"] != "head":
        steps += len(settings["long"]["lrs"]) * settings["long"]["steps"]
    once = shape.vocabulary * (4 * shape.width + LOGIT)
    memory, flops = FP32 * shape.parameters + found / 10, steps * settings["positions"] * once
    return Need(gpu=True, memory=memory, gpu_memory=tile, flops=flops, layers=steps)


def project_on_heads(config: Config, wildcards: Wildcards) -> Need:
    """Solve the convex problem of every head, in float32 and then in float64."""
    (shape, tile, found), settings = _projected(config), config["softmax_bottleneck"]
    others = [config["models"][name]["width"] for name in settings["heads"]]
    flops, widths = 0.0, [shape.width, shape.width, *settings["ranks"], *others]
    for width in widths:
        once = settings["positions"] * shape.vocabulary * (4 * width + LOGIT)
        flops += min(EVALUATIONS * width, settings["optimum"]["max_evaluations"]) * once
    memory = FP32 * shape.parameters + found / 10 + 24 * shape.vocabulary * max(widths)
    return Need(gpu=True, memory=memory, gpu_memory=tile, flops=flops)
