"""What the trainings of models with and without an MLP need."""

from knnlm.plan.needs import Config, Need, Wildcards
from knnlm.plan.shapes import own, training, vocabulary_of
from knnlm.plan.sizes import SENTENCE, sentences

VARIANTS = 4  # every MLP, without the last, without a middle one, and as many parameters


def train_hurdle_macondo(config: Config, wildcards: Wildcards) -> Need:
    """Train every variant on the test sentences, scoring the names as it goes."""
    block = config["mlp_hurdle"]["macondo"]
    return _variants(config, block, SENTENCE, sentences(config, block["town"]))


def train_hurdle_text(config: Config, wildcards: Wildcards) -> Need:
    """Train every variant on windows of text."""
    settings = config["mlp_hurdle"]
    return _variants(config, settings["text"], settings["shape"]["context"], 0)


def _variants(config: Config, block: Config, span: int, examples: int) -> Need:
    model = config["datastores"][config["baseline"]["datastore"]]["model"]
    vocabulary = vocabulary_of(config, config["models"][model]["tokenizer"])
    shape, updates = own(config["mlp_hurdle"]["shape"], vocabulary), VARIANTS * block["updates"]
    batch, scored = block["batch_size"] * span, examples * span * updates / block["every"]
    return training(shape, block, batch=batch, passes=updates, span=span, scored=scored)
