"""What the long rules of the shared pipeline need: a function for each. Standard library only."""

import math
from dataclasses import replace

from knnlm.plan.needs import FP32, STEP, Config, Need, Wildcards
from knnlm.plan.shapes import shape_of_model, training
from knnlm.plan.sizes import NEIGHBOR, SPLITS, neighbors, part_of, queries, text_bytes, tokens
from knnlm.plan.units import SLICE_BYTES, TOKENS_A_BATCH

ENCODE_STEPS = 17  # interpreted ones, as long a byte of text
SCORED_TOKENS, BLOCK_TOKENS = 1 << 12, 1 << 17  # read by one forward pass, and for a saved block
TILE_BYTES = 20 << 23  # of a tile of logits in fp32, in double, and of their softmax
KMEANS_ROUNDS, CODES = 25, 256  # of faiss, at most; centroids of a byte of a code


def tokenize_corpus(config: Config, wildcards: Wildcards) -> Need:
    """Read or write every split, in steps of an interpreter, and its tokens."""
    corpus = wildcards.get("corpus") or config["tokenizers"][wildcards["tokenizer"]]["corpus"]
    size = sum(text_bytes(config, corpus, split) for split in SPLITS)
    return Need(memory=10 * size, disk=3 * size, flops=STEP * ENCODE_STEPS * size, torch=False)


build_corpus = train_tokenizer = tokenize_corpus


def fetch_language_model(config: Config, wildcards: Wildcards) -> Need:
    """Load a pretrained LM and save it as an artifact."""
    size = FP32 * shape_of_model(config, wildcards["model"]).parameters
    return Need(memory=2 * size, disk=size, moved=2 * size)


def train_language_model(config: Config, wildcards: Wildcards) -> Need:
    """Train from scratch; what is taken from a shorter training is not subtracted."""
    model, shape = config["models"][wildcards["model"]], shape_of_model(config, wildcards["model"])
    block, span = model["training"], model["context"]
    batch, every = block["batch_size"] * span, block["validate_every"] * block["accumulation"]
    validated = tokens(config, model["corpus"], model["tokenizer"], "validation")
    validated = min(block["validation_tokens"] or math.inf, validated)
    passes = block["tokens"] // batch
    scored = validated * (passes / every + 1)
    need = training(shape, block, batch=batch, passes=passes, span=span, scored=scored)
    return replace(need, shared=True, disk=4 * need.disk / 3)  # the trunk, and the weights


def score_queries(config: Config, wildcards: Wildcards) -> Need:
    """Read the windows of the queries with an LM or a control; keep states and scores."""
    base = config["datastores"][config["baseline"]["datastore"]]["model"]
    name, corpus, split = wildcards.get("model") or base, wildcards["corpus"], wildcards["split"]
    model, settings, shape = config["models"][name], config["queries"], shape_of_model(config, name)
    context, span = model["context"], settings["tokens_per_document"]
    stride, count = min(settings["stride"], context), queries(config, name, corpus, split)
    windows = tokens(config, corpus, model["tokenizer"], split) / stride
    windows = min(windows, count / span * (span / stride + 1)) if span else windows
    entry = FP32 * 3 * shape.width + 26  # states of three sites, and what describes a query
    held = 2 * entry * min(count, BLOCK_TOKENS * stride / context)
    states = shape.states(max(SCORED_TOKENS, context)) + TILE_BYTES
    memory, disk = FP32 * shape.parameters + held, count * entry
    flops = shape.forward(windows * context, span=context, scored=count)
    return Need(memory=memory, gpu_memory=states, disk=disk, flops=flops, gpu=True)


score_continued = score_queries


def build_datastore_part(config: Config, wildcards: Wildcards) -> Need:
    """Read a part of the train split in overlapping windows; write the keys."""
    block, (shape, rows, _, entry, _) = (
        config["datastores"][wildcards["datastore"]],
        part_of(config, wildcards),
    )
    context, disk = config["models"][block["model"]]["context"], rows * entry
    read = rows / block["share"] * context / min(block["stride"], context)
    memory = FP32 * shape.parameters + 4 * min(disk, block["shard_mib"] << 20)
    states, flops = shape.states(max(TOKENS_A_BATCH, context)), shape.forward(read, span=context)
    return Need(memory=memory, gpu_memory=states, disk=disk, flops=flops, moved=disk, gpu=True)


def train_index(config: Config, wildcards: Wildcards) -> Need:
    """Cluster a sample of keys, and the parts of their codes."""
    whole, block = part_of(config, wildcards), config["indexes"][wildcards["index"]]
    sample, centroids = min(block["train_keys"], whole.rows), block["n_centroids"] + CODES
    flops = 2 * KMEANS_ROUNDS * sample * centroids * whole.shape.width
    size, moved = FP32 * whole.shape.width, sample * max(4096, whole.key)  # a page each at least
    return Need(memory=4 * sample * size, disk=centroids * size, flops=flops, moved=moved)


def encode_index_part(config: Config, wildcards: Wildcards) -> Need:
    """Find the cluster of every key of a part, and its code."""
    part, block = part_of(config, wildcards), config["indexes"][wildcards["index"]]
    centroids, size = block["n_centroids"] + CODES, FP32 * part.shape.width
    disk, flops = part.rows * (2 + part.code), 2 * part.rows * centroids * part.shape.width
    memory = 1.2 * min(SLICE_BYTES, part.rows * size) + centroids * size
    return Need(memory=memory, disk=disk, flops=flops, moved=disk + part.rows * part.key)


def search_part(config: Config, wildcards: Wildcards) -> Need:
    """Find the neighbors of every query in a part; an inverted file is held in memory whole."""
    settings, index = config["search"], config["indexes"][wildcards["index"]]
    part, found = part_of(config, wildcards), neighbors(config, wildcards)
    count, exact = found / settings["k"] / NEIGHBOR, not part.code
    # An inverted file compares few keys, one by one; its lists, grown by doubling, stay in memory.
    share = 1 if exact else 6 * index["n_probes"] / index["n_centroids"]
    lists = 0 if exact else 1.5 * part.rows * (part.code + 8)
    tile = min(FP32 * part.rows * part.shape.width, settings["keys_mib"] << 20)
    tile += settings["block_queries"] * (4 * 4096 + 72 * settings["k"])  # scores, and six lists
    on_gpu = exact and config["scale"] != "cpu"
    times_read = 1 + (max(1, count / settings["block_queries"]) if exact else 0)
    return Need(
        gpu=exact,
        memory=tile + lists,
        disk=found,
        gpu_memory=on_gpu * (tile + 3 * (settings["scores_mib"] << 20)),
        flops=2 * count * part.rows * part.shape.width * share,
        moved=part.rows * part.entry * times_read + found,
    )


def search_fused_part(config: Config, wildcards: Wildcards) -> Need:
    """Encode a part block by block, compare, and save the nearest so far after each block."""
    encoding, search = build_datastore_part(config, wildcards), search_part(config, wildcards)
    part, unit = part_of(config, wildcards), config["indexes"][wildcards["index"]]["block_keys"]
    keys, found = FP32 * min(unit, part.rows) * part.shape.width, neighbors(config, wildcards)
    memory = FP32 * part.shape.parameters + search.memory + 1.5 * keys + 2 * found
    gpu_memory = encoding.gpu_memory + search.gpu_memory + keys * (config["scale"] != "cpu")
    flops, moved = encoding.flops + search.flops, found * (2 + part.rows / unit)
    return Need(
        memory=memory, gpu_memory=gpu_memory, disk=2 * found, flops=flops, moved=moved, gpu=True
    )


def search_neighbors(config: Config, wildcards: Wildcards) -> Need:
    """Merge the neighbors of every part, block by block; those of a single part are linked."""
    parts, found = (
        config["datastores"][wildcards["datastore"]]["parts"],
        neighbors(config, wildcards),
    )
    block = config["search"]["block_queries"] * config["search"]["k"] * NEIGHBOR
    merged = 10 * min(block, found) if parts > 1 else 0
    return Need(memory=found + merged, disk=found, moved=found * (1 + parts), torch=False)


def tune_interpolation(config: Config, wildcards: Wildcards) -> Need:
    """Sweep k, temperature and lmbda over the neighbors of validation."""
    found = neighbors(config, {**wildcards, "split": "validation"})
    grid, k = config["baseline"]["grid"], config["search"]["k"]
    tried = (1 + len(grid["k"]) * grid["lmbdas"]["count"] / k) * grid["temperatures"]["count"]
    return Need(memory=3 * found, flops=100 * tried * found / NEIGHBOR, moved=found)
