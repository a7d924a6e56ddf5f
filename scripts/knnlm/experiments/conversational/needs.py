"""What the fine-tunings on questions and answers need."""

from dataclasses import replace

from knnlm.plan.needs import Config, Need, Wildcards
from knnlm.plan.sizes import fine_tune

LENGTH = 38  # tokens of a conversation, the end-of-document token included


def finetune_conversational(config: Config, wildcards: Wildcards) -> Need:
    """Fine-tune on the train and on the test questions; score all answers after each epoch."""
    name, town = wildcards["fine_tuning"], config["macondo_conv"]
    examples = town["villagers"] * town["children_each"]
    fit, shape = fine_tune(config, name, examples=examples, length=LENGTH)
    read = config["fine_tunings"][name]["epochs"] * 3 * examples * LENGTH
    flops = fit.flops + shape.forward(read, span=LENGTH, scored=read)
    return replace(fit, flops=2 * flops, layers=2 * fit.layers)
