"""What MLPs in the place of a datastore, and the controls, need."""

from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.pipeline import training
from knnlm.plan.sizes import entries


def for_train_mlp_replacement(config: Settings, wildcards: Wildcards) -> Need:
    """Train an MLP and a head on every pair of a datastore, some epochs."""
    settings, (count, _, size) = config["mlp_augmentation"]["training"], entries(config, wildcards)
    head, batch = size.width * size.vocabulary, settings["batch_size"] / settings["accumulation"]
    trained = head + 2 * settings["hidden_multiple"] * size.width**2
    return Need(
        gpu=True,
        memory=4 * (settings["buffer_mib"] << 20),
        gpu_memory=FP32 * (4 * (trained + batch * size.vocabulary) + head),
        disk=3 * FP32 * trained,
        flops=6 * settings["epochs"] * count * trained,
    )


def for_continue_language_model(config: Settings, wildcards: Wildcards) -> Need:
    """Train the LM on: its last layers for as many updates, or all for as many FLOPs."""
    store, settings = config["baseline"]["datastore"], config["mlp_augmentation"]["training"]
    span = config["models"][config["datastores"][store]["model"]]["context"]
    count, _, size = entries(config, {"datastore": store})
    batch = settings["batch_size"] / settings["accumulation"]
    return training(size, settings, batch, settings["epochs"] * count / batch, span)
