"""What the fine-tunings on Macondo, and MLPs in the place of its datastore, need."""

from dataclasses import replace

from knnlm.plan.needs import FP32, Config, Need, Wildcards
from knnlm.plan.shapes import Shape, fine_tune, shape_of_fine_tuning
from knnlm.plan.sizes import SENTENCE, sentences


def _town(config: Config, wildcards: Wildcards) -> tuple[Shape, int]:
    """Return the shape with all names in its vocabulary, and the examples."""
    name = wildcards["fine_tuning"]
    examples = sentences(config, config["fine_tunings"][name]["town"])
    return shape_of_fine_tuning(config, name, names=examples), examples


def finetune_macondo(config: Config, wildcards: Wildcards) -> Need:
    """Fine-tune on sentences; at some points score the names, alone and with retrieval."""
    (shape, examples), settings = _town(config, wildcards), config["overspecification"]
    block, keys = config["fine_tunings"][wildcards["fine_tuning"]], examples * SENTENCE
    fit = fine_tune(shape, block, examples=examples, length=SENTENCE)
    kept = 3 * FP32 * shape.width * (keys + shape.vocabulary)  # keys and head of three points
    scored = shape.forward(3 * keys, span=SENTENCE, scored=3 * examples)
    flops = fit.flops + settings["points"] * (scored + 6 * examples * keys * shape.width)
    memory = fit.memory + kept + 36 * examples * min(settings["k"], keys)
    return replace(fit, flops=flops, memory=memory, disk=max(fit.disk, kept))


def train_macondo_mlp(config: Config, wildcards: Wildcards) -> Need:
    """Train an MLP for each of three points, and ask it and the datastore every test token."""
    (shape, examples), mlp = _town(config, wildcards), config["overspecification"]["mlp"]
    keys, head = examples * SENTENCE, shape.width * shape.vocabulary
    count = 2 * shape.width * mlp["hidden"] + head
    asked = 2 * keys * keys * shape.width
    memory = FP32 * (2 * keys * shape.width + head)
    gpu_memory = 4 * FP32 * (count + min(mlp["batch_size"], keys) * shape.vocabulary)
    flops = 3 * (6 * keys * mlp["epochs"] * count + asked)
    return Need(gpu=True, memory=memory, gpu_memory=gpu_memory, disk=12 * count, flops=flops)
