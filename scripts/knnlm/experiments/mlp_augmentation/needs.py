"""What MLPs in the place of a datastore, and the controls, need."""

from knnlm.plan.needs import FP32, Config, Need, Wildcards
from knnlm.plan.shapes import shape_of_model
from knnlm.plan.sizes import part_of


def train_mlp_replacement(config: Config, wildcards: Wildcards) -> Need:
    """Train an MLP on every pair of a datastore, some epochs."""
    settings, whole = config["mlp_augmentation"]["training"], part_of(config, wildcards)
    width, head = whole.shape.width, whole.shape.width * whole.shape.vocabulary
    count = 2 * settings["hidden_multiple"] * width**2 + head
    logits = settings["batch_size"] / settings["accumulation"] * whole.shape.vocabulary
    pairs = settings["epochs"] * whole.rows
    memory = FP32 * (2 * count + (settings["buffer_mib"] << 20))
    gpu_memory = 4 * FP32 * (count + logits) + FP32 * head
    moved, flops = pairs * whole.entry, 6 * pairs * count
    return Need(
        gpu=True, memory=memory, gpu_memory=gpu_memory, disk=12 * count, flops=flops, moved=moved
    )


def continue_language_model(config: Config, wildcards: Wildcards) -> Need:
    """Train the LM on: its last layers for as many updates, or all for as many FLOPs."""
    store, settings = config["baseline"]["datastore"], config["mlp_augmentation"]["training"]
    model = config["datastores"][store]["model"]
    shape, span = shape_of_model(config, model), config["models"][model]["context"]
    batch = settings["batch_size"] / settings["accumulation"]
    pairs = settings["epochs"] * part_of(config, {"datastore": store}).rows
    flops, size = 3 * shape.forward(pairs, span=span, scored=pairs), FP32 * shape.parameters
    memory, on_gpu = 3 * size, shape.training(batch)
    return Need(gpu=True, memory=memory, gpu_memory=on_gpu, disk=3 * size, flops=flops)
