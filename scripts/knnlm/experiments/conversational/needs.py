"""What the fine-tunings on questions and answers need."""

from dataclasses import replace

from knnlm.plan.needs import Need, Settings, Wildcards
from knnlm.plan.pipeline import fine_tuning

LENGTH = 38  # tokens of a conversation, the end-of-document token included


def for_finetune_conversational(config: Settings, wildcards: Wildcards) -> Need:
    """Fine-tune on train and on test; each epoch, scoring all answers takes as long again."""
    examples = config["macondo_conv"]["villagers"] * config["macondo_conv"]["children_each"]
    fit, _ = fine_tuning(config, wildcards["fine_tuning"], examples, LENGTH)
    return replace(fit, flops=4 * fit.flops, waiting=2 * fit.waiting)
