"""What the fine-tunings on questions and answers need."""

from dataclasses import replace

from knnlm.plan.needs import Config, Need, Wildcards
from knnlm.plan.shapes import fine_tune, shape_of_fine_tuning

LENGTH = 38  # tokens of a conversation, the end-of-document token included


def finetune_conversational(config: Config, wildcards: Wildcards) -> Need:
    """Fine-tune on the train and on the test questions; score all answers after each epoch."""
    name, town = wildcards["fine_tuning"], config["macondo_conv"]
    block, examples = config["fine_tunings"][name], town["villagers"] * town["children_each"]
    shape = shape_of_fine_tuning(config, name, names=examples)
    fit, read = fine_tune(shape, block, examples=examples, length=LENGTH), 3 * examples * LENGTH
    scored = block["epochs"] * shape.forward(read, span=LENGTH, scored=read)
    return replace(fit, flops=2 * (fit.flops + scored), layers=2 * fit.layers)
