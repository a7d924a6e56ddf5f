"""What output embeddings that are trained from a datastore need."""

from knnlm.experiments.trained_embeddings.sizes import Size, sizes_of, training_bytes
from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.sizes import entries


def for_train_output_embeddings(config: Settings, wildcards: Wildcards) -> Need:
    """Train embeddings of every size on every pair of a datastore, some epochs, one by one."""
    settings = config["trained_embeddings"]["training"]
    count, _, size = entries(config, wildcards)
    vectors = [Size.named(name).vectors for name in sizes_of(config, wildcards["datastore"])]
    row = size.vocabulary * size.width
    return Need(
        gpu=True,
        memory=4 * (settings["buffer_mib"] << 20),
        gpu_memory=training_bytes(settings, size, max(vectors)),
        disk=FP32 * row * (sum(vectors) + 3 * max(vectors)),
        flops=6 * settings["epochs"] * count * row * sum(vectors),
    )
