"""The needs of the shared pipeline: text, language models, datastore, index, search.

Standard library only: the Snakefile imports this module, in every job.
"""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.plan_models import (
    activations,
    forward,
    state_bytes,
    training,
)
from knnlm.runtime.plan_needs import Config, Need, Wildcards, half_precision, models
from knnlm.runtime.plan_sizes import (
    documents,
    parameters,
    queried_tokens,
    queries,
    text_bytes,
    tokens,
    vocabulary,
)
from knnlm.runtime.plan_work import Work, product

SPLITS = ("train", "validation", "test")
ID, DISTANCE, VALUE = 8, 4, 4  # bytes of a stored neighbor
# Simple interpreted steps a byte, or as long: to make text (benchmarks/gazetteer.py), to read it.
STEPS_PER_BYTE = {"gazetteer": 25.0, "hub": 1.0, "local": 1.0}
SLICE_BYTES = 512 << 20  # as in knnlm.retrieval.datastore
KMEANS_ROUNDS = {"coarse": 10, "codes": 25}  # of faiss, as used in knnlm.retrieval.inverted_file
CODES = 256  # centroids of each byte of a code
TOKEN_RECORD = 2 + 8 + 1 + 1  # bytes of a token, its place in the text, words and lines
TOKENIZER_STEPS = {"train": 12.0, "encode": 17.0}  # as long, a byte: 10 MB of other text
ENCODED_TOKENS, SCORED_TOKENS = 8192, 4096  # read by one forward pass
STORED_SITES = 3


@models("build_corpus")
def build_corpus(config: Config, wildcards: Wildcards) -> Need:
    """Make or fetch text, and cut it into documents."""
    corpus = wildcards.get("corpus", config["corpus"])
    size = sum(text_bytes(config, split, corpus) for split in SPLITS)
    steps = STEPS_PER_BYTE[config["corpora"][corpus]["source"]] * size
    return Need(work=Work(steps=steps, written=size), memory=6 * size, disk=1.1 * size)


@models("train_tokenizer")
def train_tokenizer(config: Config, wildcards: Wildcards) -> Need:
    """Count pairs in the train split, as often as there are merges, or fetch a tokenizer."""
    size = text_bytes(config, "train")
    trained = config["tokenizer"]["source"] == "trained"
    work = Work(steps=TOKENIZER_STEPS["train"] * size * trained, read=size)
    return Need(work=work, memory=4 * size, disk=60 * vocabulary(config), threads="encode")


@models("tokenize_corpus")
def tokenize_corpus(config: Config, wildcards: Wildcards) -> Need:
    """Encode every split."""
    size = sum(text_bytes(config, split) for split in SPLITS)
    count = sum(tokens(config, split) for split in SPLITS)
    work = Work(steps=TOKENIZER_STEPS["encode"] * size, read=size, written=TOKEN_RECORD * count)
    memory = 2 * size + 40 * count
    return Need(work=work, memory=memory, disk=TOKEN_RECORD * count, threads="encode")


@models("train_language_model")
def train_language_model(config: Config, wildcards: Wildcards) -> Need:
    """Train from scratch, or on from the trunk of a shorter training."""
    model, size = config["models"][wildcards["model"]], vocabulary(config)
    block, context = model["training"], model["context"]
    per_pass = block["batch_size"] * context
    per_update = per_pass * block["accumulation"]
    updates = block["tokens"] // per_update
    parent = config["models"].get(model.get("extends"))
    done = _shared_updates(parent, model) if parent else 0
    work = training(
        model,
        size,
        updates=updates - done,
        tokens_per_update=per_update,
        passes=block["accumulation"],
    )
    validated = min(block["validation_tokens"] or 1e30, tokens(config, "validation"))
    times = (updates - done) / block["validate_every"] + 1
    passes = max(1, validated / per_pass)
    work = work + forward(model, size, validated, passes=passes) * times
    state, half = state_bytes(parameters(model, size)), half_precision(block["precision"])
    saves = (updates - done) / block["save_every"]
    return Need(
        work=work + Work(written=saves * 0.75 * state),
        memory=0.5 * state,
        device=state + activations(model, size, per_pass, scored=per_pass, half=half),
        disk=0.25 * state + 0.75 * state,  # the weights, and the trunk with its two moments
        scratch=0.75 * state,
        threads="train",
        gpu=True,
        shared=True,
        half=half,
    )


def _shared_updates(parent: Mapping[str, Any], model: Mapping[str, Any]) -> float:
    """Return the updates that a longer training of the same model takes from a shorter one."""
    both = (parent, model)
    inner = [{k: v for k, v in m["training"].items() if k != "tokens"} for m in both]
    outer = [{k: v for k, v in m.items() if k not in ("extends", "training")} for m in both]
    if inner[0] != inner[1] or outer[0] != outer[1]:
        return 0
    schedule, block = model["training"]["schedule"], parent["training"]
    per_update = block["batch_size"] * block["accumulation"] * parent["context"]
    return block["tokens"] // per_update * (1 - schedule.get("decay_share", 0))


@models("score_queries", "score_control")
def score_queries(config: Config, wildcards: Wildcards) -> Need:
    """Read the windows of the queries; keep states, and log-probabilities of the targets."""
    model = config["models"][wildcards.get("model") or base_model(config)]
    size, split = vocabulary(config), wildcards["split"]
    count = queries(config, split)
    n_read = queried_tokens(config, model, split)
    work = forward(model, size, n_read, scored=count, passes=max(1, n_read / SCORED_TOKENS))
    disk = count * (4 * STORED_SITES * model["width"] + 26)
    return Need(
        work=work + Work(written=2 * disk, exponentials=count * size),
        memory=4 * parameters(model, size) + 128e6,
        device=activations(model, size, SCORED_TOKENS, scored=0),
        disk=disk,
        scratch=disk,
        threads="encode",
        gpu=True,
    )


def base_model(config: Config) -> str:
    """Return the name of the model of the datastore that the experiments ask."""
    return config["datastores"][config["knn_perplexity"]["datastore"]]["model"]


def keys_of(config: Config, datastore: str) -> tuple[float, int, int]:
    """Return entries, width and bytes a number of a datastore."""
    block = config["datastores"][datastore]
    width = config["models"][block["model"]]["width"]
    return tokens(config, "train") - 1, width, 2 if block["dtype"] == "float16" else 4


def store_bytes(config: Config, datastore: str) -> float:
    """Return the bytes of a datastore: keys, and values in 2 or 4 bytes."""
    entries, width, number = keys_of(config, datastore)
    return entries * (width * number + (2 if vocabulary(config) <= 1 << 16 else 4))


@models("build_datastore")
def build_datastore(config: Config, wildcards: Wildcards) -> Need:
    """Read the train split in overlapping windows; write the keys."""
    block = config["datastores"][wildcards["datastore"]]
    model, size = config["models"][block["model"]], vocabulary(config)
    n_read = tokens(config, "train") * model["context"] / min(block["stride"], model["context"])
    work = forward(model, size, n_read, scored=0, passes=max(1, n_read / ENCODED_TOKENS))
    disk = store_bytes(config, wildcards["datastore"])
    return Need(
        work=work + Work(moved=3 * disk, written=disk),
        memory=4 * parameters(model, size) + 4 * block["shard_mib"] * (1 << 20),
        device=activations(model, size, ENCODED_TOKENS, scored=0),
        disk=disk,
        threads="encode",
        gpu=True,
    )


def index_bytes(config: Config, datastore: str, index: str) -> float:
    """Return the bytes of an index; exact search has none."""
    block = config["indexes"][index]
    entries, width, _ = keys_of(config, datastore)
    if block["engine"] == "exact":
        return 0.0
    entry = 4 * width if block["engine"] == "ivf_flat" else block["code_bytes"]
    return entries * (entry + ID) + 4 * width * block["n_centroids"]


@models("build_index")
def build_index(config: Config, wildcards: Wildcards) -> Need:
    """Cluster a sample of keys, and put every key into its cluster."""
    block = config["indexes"][wildcards["index"]]
    stored = store_bytes(config, wildcards["datastore"])
    if block["engine"] == "exact":
        return Need(work=Work(read=stored, torch=True), disk=1e4, threads="search")
    entries, width, _ = keys_of(config, wildcards["datastore"])
    sample, centroids = min(block["train_keys"], entries), block["n_centroids"]
    work = compare(sample, centroids, width) * KMEANS_ROUNDS["coarse"]
    work = work + compare(entries, centroids, width)
    if block["engine"] == "ivfpq":
        parts = block["code_bytes"]
        codes = compare(1, CODES, width / parts) * parts
        work = work + codes * (min(sample, CODES * CODES) * KMEANS_ROUNDS["codes"] + entries)
    disk = index_bytes(config, wildcards["datastore"], wildcards["index"])
    return Need(
        work=work + Work(read=stored, written=disk, torch=True),
        memory=2 * disk + 8 * sample * width + SLICE_BYTES,
        disk=disk,
        threads="search",
    )


def compare(n_queries: float, n_keys: float, width: float) -> Work:
    """Return the work of squared distances of every query to every key, each looked at twice."""
    scores = n_queries * n_keys
    return product(n_queries, width, n_keys, side=width) + Work(moved=8 * scores)


def search_work(config: Config, datastore: str, n_queries: float) -> Work:
    """Return the work of exact search: candidates, direct distances of them, and a sort."""
    entries, width, number = keys_of(config, datastore)
    settings = config["search"]
    blocks = max(1, n_queries / settings["block_queries"])
    slices = max(1, 4 * entries * width / SLICE_BYTES)
    again = blocks if slices > 1 else 1  # one slice is converted once for all blocks
    merged = n_queries * (settings["k"] + 32) * min(slices, 4)  # later slices add little
    return compare(n_queries, entries, width) + Work(
        moved=again * entries * width * (number + 4) + merged * (4 * width + 20 * (ID + DISTANCE)),
        read=again * entries * width * number,
        torch=True,
    )


@models("search_neighbors")
def search_neighbors(config: Config, wildcards: Wildcards) -> Need:
    """Find the neighbors of every query, and the recall of an approximate engine on a sample."""
    datastore, block = wildcards["datastore"], config["indexes"][wildcards["index"]]
    entries, width, _ = keys_of(config, datastore)
    settings, count = config["search"], queries(config, wildcards["split"])
    found = count * settings["k"] * (ID + DISTANCE + VALUE)
    in_use = index_bytes(config, datastore, wildcards["index"])
    if block["engine"] == "exact":
        work = search_work(config, datastore, count)
    else:
        visited = count * entries * block["n_probes"] / block["n_centroids"]
        codes = block["engine"] == "ivfpq"
        work = search_work(config, datastore, min(count, settings["recall_sample"]))
        # A visited key is read: all of it, or a byte of code and a number of a table at a time.
        work = work + Work(moved=visited * (5 * block["code_bytes"] if codes else 4 * width))
        work = work + Work(read=in_use) * max(1, count / settings["block_queries"] / 1e9)
        if block["rescore"]:
            work = work + Work(moved=count * settings["k"] * (4 * width + 60))
    scores = 4 * settings["block_queries"] * 4096  # of a tile of faiss
    block_found = settings["block_queries"] * settings["k"] * 6 * (ID + DISTANCE)
    return Need(
        work=work + Work(read=store_bytes(config, datastore), written=found),
        memory=min(SLICE_BYTES, 4 * entries * width) + in_use + scores + block_found + 2 * found,
        disk=found,
        scratch=found,
        threads="search",
        gpu=block["engine"] == "exact",
    )


def documents_scored(config: Config, split: str) -> float:
    """Return the documents over which a bootstrap resamples."""
    span = config["queries"]["tokens_per_document"]
    every = documents(config, split)
    return min(every, queries(config, split) / span) if span else every
