"""What MLPs in the place of a datastore, and the controls, need."""

from dataclasses import replace

from knnlm.plan.needs import Config, Need, Wildcards
from knnlm.plan.shapes import mlp_training, training
from knnlm.plan.sizes import part_of


def train_mlp_replacement(config: Config, wildcards: Wildcards) -> Need:
    """Train an MLP on every pair of a datastore, some epochs."""
    settings, whole = config["mlp_augmentation"]["training"], part_of(config, wildcards)
    inner = 2 * settings["hidden_multiple"] * whole.shape.width**2
    head, pairs = whole.shape.width * whole.shape.vocabulary, settings["epochs"] * whole.rows
    logits = settings["batch_size"] / settings["accumulation"] * whole.shape.vocabulary
    need, buffers = mlp_training(inner, head, logits, pairs), 4 * settings["buffer_mib"] << 20
    return replace(need, memory=need.memory + buffers, moved=pairs * whole.entry)


def continue_language_model(config: Config, wildcards: Wildcards) -> Need:
    """Train the LM on: its last layers for as many updates, or all for as many FLOPs."""
    store, settings = config["baseline"]["datastore"], config["mlp_augmentation"]["training"]
    span = config["models"][config["datastores"][store]["model"]]["context"]
    whole, batch = part_of(config, {"datastore": store}), settings["batch_size"]
    batch, pairs = batch / settings["accumulation"], settings["epochs"] * whole.rows
    return training(whole.shape, settings, batch=batch, passes=pairs / batch, span=span)
