"""What the trainings of models with and without an MLP need."""

from knnlm.plan.needs import FP32, Config, Need, Wildcards
from knnlm.plan.shapes import own, vocabulary_of
from knnlm.plan.sizes import SENTENCE, sentences

VARIANTS = 4  # every MLP, without the last, without a middle one, and as many parameters


def _trainings(config: Config, block: Config, length: int, scored: int) -> Need:
    """Return what the variants need that train on texts of a length, and score some more."""
    model = config["datastores"][config["baseline"]["datastore"]]["model"]
    vocabulary = vocabulary_of(config, config["models"][model]["tokenizer"])
    shape = own(config["mlp_hurdle"]["shape"], vocabulary)
    batch, updates = block["batch_size"] * length, VARIANTS * block["updates"]
    read = 3 * updates * batch + VARIANTS * scored * length * (
        block["updates"] / block["every"] + 1
    )
    half, state = block["precision"] != "fp32", 3 * FP32 * shape.parameters
    return Need(
        gpu=True,
        memory=state / 2,
        gpu_memory=shape.training(batch, half=half),
        disk=state,
        flops=shape.forward(read, span=length, scored=read),
        layers=updates * shape.layers,
        moved=state * updates / block["save_every"],
    )


def train_hurdle_macondo(config: Config, wildcards: Wildcards) -> Need:
    """Train every variant on the test sentences, scoring the names as it goes."""
    block = config["mlp_hurdle"]["macondo"]
    return _trainings(config, block, SENTENCE, sentences(config, block["town"]))


def train_hurdle_text(config: Config, wildcards: Wildcards) -> Need:
    """Train every variant on windows of text."""
    context = config["mlp_hurdle"]["shape"]["context"]
    return _trainings(config, config["mlp_hurdle"]["text"], context, 0)
