"""The needs of the shared pipeline: text, and language models with their queries.

Standard library only: the Snakefile imports this module, in every job.
"""

from collections.abc import Mapping
from typing import Any

from knnlm.plan.models import (
    activations,
    forward,
    state_bytes,
    training,
)
from knnlm.plan.needs import Config, Need, Wildcards, half_precision, models
from knnlm.plan.sizes import (
    documents,
    parameters,
    queried_tokens,
    queries,
    text_bytes,
    tokens,
    vocabulary,
)
from knnlm.plan.work import Work

SPLITS = ("train", "validation", "test")
# Simple interpreted steps a byte, or as long: to make text (benchmarks/gazetteer.py), to read it.
STEPS_PER_BYTE = {"gazetteer": 25.0, "hub": 1.0, "local": 1.0}
TOKEN_RECORD = 2 + 8 + 1 + 1  # bytes of a token, its place in the text, words and lines
TOKENIZER_STEPS = {"train": 12.0, "encode": 17.0}  # as long, a byte: 10 MB of other text
SCORED_TOKENS = 4096  # read by one forward pass
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


def documents_scored(config: Config, split: str) -> float:
    """Return the documents over which a bootstrap resamples."""
    span = config["queries"]["tokens_per_document"]
    every = documents(config, split)
    return min(every, queries(config, split) / span) if span else every
