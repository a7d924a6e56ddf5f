"""What certifying output vectors, and scoring what might stand in kNN's place, need."""

from knnlm.plan.needs import FP32, Need, Settings, Wildcards
from knnlm.plan.sizes import entries, model_size, neighbors, queries

FP64 = 8
STEPPED = 0.02  # share of the vocabulary that takes most of the steps: 17 % begin, at scale cpu
SOLVED = 0.002  # share that takes a program
PROGRAM = 1e10  # FLOPs in the time of a program: 0.13 s at 2,048 tokens and width 64
SMALL_HEAD = 2048 * 64  # numbers of the head at which that was measured
TILES = 600e6  # bytes in float64


def for_certify_output_vectors(config: Settings, wildcards: Wildcards) -> Need:
    """Compare every output vector with every direction, and solve programs for those left.

    On the CPU: a GPU would wait for the programs.
    """
    size = model_size(config, config["datastores"][config["baseline"]["datastore"]]["model"])
    head, steps = size.vocabulary * size.width, config["ruled_out"]["stolen_probabilities"]["steps"]
    directions = 2 * size.vocabulary * head * (1 + STEPPED * steps)
    programs = SOLVED * size.vocabulary * PROGRAM * max(1.0, head / SMALL_HEAD)
    memory = FP32 * size.parameters + 8 * FP64 * head + TILES
    return Need(memory=memory, flops=len(config["lm_seeds"]) * (directions + programs))


def for_score_alternatives(config: Settings, wildcards: Wildcards) -> Need:
    """Cluster the keys, and score both splits by every alternative."""
    base = {**config["baseline"], "corpus": config["corpus"], "split": "test"}
    count, _, size = entries(config, base)
    own = config["ruled_out"]["clustered_datastore"]
    model = config["datastores"][base["datastore"]]["model"]
    scored = 2 * queries(config, model, config["corpus"], "test")
    compared = own["iterations"] * min(own["train_keys"], count) + count + scored
    clustering = 2 * size.width * sum(own["clusters"]) * compared
    exponentials = 50 * scored * own["temperatures"]["count"] * sum(own["clusters"])
    logits = 20 * scored * size.vocabulary * (size.width + 50)
    return Need(
        gpu=True,
        memory=2 * FP32 * min(own["train_keys"], count) * size.width
        + 2 * neighbors(config, base)
        + TILES
        + FP64 * size.vocabulary * size.width,
        gpu_memory=TILES + FP64 * size.width * (max(own["clusters"]) + size.vocabulary),
        disk=4 * count * len(own["clusters"]),
        flops=len(config["lm_seeds"]) * (clustering + exponentials + logits),
    )
