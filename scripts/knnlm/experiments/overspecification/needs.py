"""What the fine-tunings on Macondo, and MLPs in the place of its datastore, need."""

from dataclasses import replace

from knnlm.plan.needs import FP32, Config, Need, Wildcards
from knnlm.plan.shapes import mlp_training
from knnlm.plan.sizes import SENTENCE, fine_tune, sentences


def finetune_macondo(config: Config, wildcards: Wildcards) -> Need:
    """Fine-tune on sentences; at some points score the names, alone and with retrieval."""
    name, settings = wildcards["fine_tuning"], config["overspecification"]
    examples = sentences(config, config["fine_tunings"][name]["town"])
    fit, shape = fine_tune(config, name, examples=examples, length=SENTENCE)
    keys = examples * SENTENCE
    kept = 3 * FP32 * shape.width * (keys + shape.vocabulary)  # keys and head of three points
    scored = shape.forward(3 * keys, span=SENTENCE, scored=3 * examples)
    flops = fit.flops + settings["points"] * (scored + 6 * examples * keys * shape.width)
    memory = fit.memory + kept + 36 * examples * min(settings["k"], keys)
    return replace(fit, flops=flops, memory=memory, disk=max(fit.disk, kept))


def train_macondo_mlp(config: Config, wildcards: Wildcards) -> Need:
    """Train an MLP for each of three points, and ask it and the datastore every test token."""
    name, mlp = wildcards["fine_tuning"], config["overspecification"]["mlp"]
    examples = sentences(config, config["fine_tunings"][name]["town"])
    _, shape = fine_tune(config, name, examples=examples, length=SENTENCE)
    keys, logits = examples * SENTENCE, mlp["batch_size"] * shape.vocabulary
    inner, head = 2 * shape.width * mlp["hidden"], shape.width * shape.vocabulary
    return mlp_training(inner, head, logits, 3 * keys * mlp["epochs"])
