"""What the fine-tunings on Macondo, and MLPs in the place of its datastore, need."""

from dataclasses import replace

from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.pipeline import fine_tuning
from knnlm.plan.sizes import SENTENCE

POINTS = 3  # whose keys and heads are kept, and whose datastores get an MLP


def for_finetune_macondo(config: Settings, wildcards: Wildcards) -> Need:
    """Fine-tune; at each point, scoring all names takes as long as an epoch."""
    name, points = wildcards["fine_tuning"], config["overspecification"]["points"]
    block = config["fine_tunings"][name]
    town = config["macondo"]["towns"][block["town"]]
    children = town["max_children"] * (town["max_children"] + 1) // 2  # an example each
    examples = town["villagers_per_count"] * children
    fit, size = fine_tuning(config, name, examples, SENTENCE)
    kept = POINTS * FP32 * size.width * (examples * SENTENCE + size.vocabulary)
    flops, disk = fit.flops * (1 + points / block["epochs"]), max(fit.disk, kept)
    return replace(fit, flops=flops, memory=fit.memory + kept, disk=disk)


for_train_macondo_mlp = for_finetune_macondo  # it takes less
