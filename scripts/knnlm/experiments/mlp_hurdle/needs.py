"""What the trainings of models with and without an MLP need."""

from knnlm.experiments.mlp_hurdle.names import VARIANTS
from knnlm.plan.needs import Need, Settings, Wildcards
from knnlm.plan.pipeline import training
from knnlm.plan.sizes import SENTENCE, model_size, own_size


def for_train_hurdle_macondo(config: Settings, wildcards: Wildcards) -> Need:
    """Train every variant on sentences."""
    return _every_variant(config, "macondo", SENTENCE)


def for_train_hurdle_text(config: Settings, wildcards: Wildcards) -> Need:
    """Train every variant on windows of text."""
    return _every_variant(config, "text", config["mlp_hurdle"]["shape"]["context"])


def _every_variant(config: Settings, trained_on: str, span: int) -> Need:
    settings, block = config["mlp_hurdle"], config["mlp_hurdle"][trained_on]
    lm = config["datastores"][config["baseline"]["datastore"]]["model"]
    size = own_size(settings["shape"], model_size(config, lm).vocabulary)
    batch, passes = block["batch_size"] * span, len(VARIANTS) * block["updates"]
    return training(size, block, batch, passes, span)
