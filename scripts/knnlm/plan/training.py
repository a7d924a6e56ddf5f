"""The needs of mlp_hurdle and mlp_augmentation: models trained beside one another.

Standard library only: the Snakefile imports this module, in every job.
"""

from collections.abc import Mapping
from typing import Any

from knnlm.plan.models import (
    activations,
    backward_too,
    forward,
    mlp_training,
    state_bytes,
    training,
)
from knnlm.plan.needs import Config, Need, Wildcards, half_precision, models
from knnlm.plan.pipeline import base_model
from knnlm.plan.retrieval import keys_of, store_bytes
from knnlm.plan.sizes import (
    SENTENCE,
    conversations,
    parameters,
    queries,
    sentences,
    shape_of,
    vocabulary,
)
from knnlm.plan.work import Work

VARIANTS = 4  # with every MLP, without the last, without a middle one, and as many parameters
SEEN_TOKENS = 242  # of test sentences beside the names: the words of villagers' names
SCORED_SENTENCES = 256  # in one pass


@models("train_hurdle_macondo")
def train_hurdle_macondo(config: Config, wildcards: Wildcards) -> Need:
    """Train every variant on the test sentences, scoring the names as it goes."""
    block, shape = config["mlp_hurdle"]["macondo"], config["mlp_hurdle"]["shape"]
    town = config["macondo"]["towns"][block["town"]]
    examples, name = sentences(config, block["town"]), town["tokenizer"]
    whole = shape_of(name)["vocabulary"] if name else vocabulary(config)
    size = examples + SEEN_TOKENS if block["vocabulary"] == "seen" else whole
    length = SENTENCE["test"]
    points = block["updates"] / block["every"] + 1
    read = examples * length
    passes = max(1, examples / SCORED_SENTENCES)
    scoring = forward(shape, size, read, span=length, scored=examples, passes=passes) * points
    return _variants(block, shape, size, block["batch_size"] * length, length, scoring)


@models("train_hurdle_text")
def train_hurdle_text(config: Config, wildcards: Wildcards) -> Need:
    """Train every variant on windows of text."""
    block, shape = config["mlp_hurdle"]["text"], config["mlp_hurdle"]["shape"]
    context = shape["context"]
    per_update = block["batch_size"] * context
    return _variants(block, shape, vocabulary(config), per_update, context, Work())


def _variants(
    block: Mapping[str, Any],
    shape: Mapping[str, Any],
    size: int,
    per_update: float,
    span: float,
    scoring: Work,
) -> Need:
    one = training(shape, size, updates=block["updates"], tokens_per_update=per_update, span=span)
    state, half = state_bytes(parameters(shape, size)), half_precision(block["precision"])
    saves = block["updates"] / block["save_every"]
    return Need(
        work=(one + scoring + Work(written=0.75 * state * saves)) * VARIANTS,
        memory=0.5 * state,
        device=state + activations(shape, size, per_update, scored=per_update, half=half),
        disk=1e5 + 200 * VARIANTS * block["updates"] / block["every"],
        scratch=0.75 * state,
        threads="fine_tune",
        gpu=True,
        half=half,
    )


@models("train_mlp_replacement")
def train_mlp_replacement(config: Config, wildcards: Wildcards) -> Need:
    """Train an MLP on every pair of a datastore, some epochs."""
    settings, size = config["mlp_replacement"], vocabulary(config)
    entries, width, _ = keys_of(config, wildcards["datastore"])
    hidden = settings["hidden_multiple"] * width
    frozen = wildcards["head"] == "lm_head_frozen"
    work = mlp_training(
        width,
        hidden,
        size,
        pairs=entries * settings["epochs"],
        batch=settings["batch_size"],
        frozen=frozen,
    )
    count = 2 * width * hidden + (0 if frozen else size * width)
    read = settings["epochs"] * store_bytes(config, wildcards["datastore"])
    logits = 4 * 4 * settings["batch_size"] / settings["accumulation"] * size
    return Need(
        work=work + Work(read=read, moved=2 * read),
        memory=0.5 * state_bytes(count) + 4 * settings["buffer_mib"] * (1 << 20),
        device=state_bytes(count) + 4 * size * width + logits,
        disk=4 * count,
        scratch=12 * count,
        threads="fine_tune",
        gpu=True,
        half=half_precision(settings["precision"]),
    )


@models("continue_language_model")
def continue_language_model(config: Config, wildcards: Wildcards) -> Need:
    """Train the LM on: its last layers for as many updates, or all for as many FLOPs."""
    settings, size = config["mlp_replacement"], vocabulary(config)
    model = config["models"][base_model(config)]
    entries, width, _ = keys_of(config, config["knn_perplexity"]["datastore"])
    batch, hidden = settings["batch_size"], settings["hidden_multiple"] * width
    updates = entries * settings["epochs"] // batch
    passes = settings["accumulation"]
    if wildcards["control"] == "last_layers":
        trained = 2 * width * model["ffn_width"] + size * width
        below = forward(model, size, batch, scored=0, passes=passes)
        mlp = mlp_training(
            width, model["ffn_width"], size, pairs=batch, batch=batch / passes, frozen=False
        )
        work = (below + mlp) * updates
    else:
        mlp = mlp_training(width, hidden, size, pairs=batch, batch=batch, frozen=False)
        whole = backward_too(forward(model, size, batch, passes=passes))
        updates = max(1, round(updates * mlp.flops / whole.flops))
        trained = parameters(model, size)
        work = training(model, size, updates=updates, tokens_per_update=batch, passes=passes)
    return Need(
        work=work,
        memory=4 * parameters(model, size) + 0.5 * state_bytes(trained),
        device=state_bytes(trained)
        + activations(model, size, batch / passes, scored=batch / passes),
        disk=4 * (parameters(model, size) + size * width),
        scratch=0.75 * state_bytes(trained),
        threads="fine_tune",
        gpu=True,
        half=half_precision(settings["precision"]),
    )


@models("evaluate_mlp_augmentation")
def evaluate_mlp_augmentation(config: Config, wildcards: Wildcards) -> Need:
    """Ask every replacement, mix, tune lmbda, and resample documents."""
    size, heads = vocabulary(config), len(config["mlp_augmentation"]["heads"])
    model = config["models"][base_model(config)]
    count = sum(queries(config, split) for split in ("validation", "test"))
    hidden = config["mlp_replacement"]["hidden_multiple"] * model["width"]
    shape = {**model, "layers": 1, "ffn_width": hidden}
    ask = forward(shape, size, count, span=1, passes=max(1, count / 1024))
    resampled = 40 * config["knn_perplexity"]["bootstrap"]["samples"] * 60
    stored = queries(config, "test") * config["search"]["k"] * 16
    return Need(
        work=ask * heads + Work(moved=8 * resampled, read=stored, steps=2e6),
        memory=4 * parameters(model, size) + 3 * stored,
        disk=1e6,
    )


@models("evaluate_overspecification", "evaluate_conversational", "evaluate_mlp_hurdle")
def evaluate_fine_tunings(config: Config, wildcards: Wildcards) -> Need:
    """Read what was scored during the fine-tunings, and resample."""
    towns = [sentences(config, town) for town in config["macondo"]["towns"]]
    examples = max(*towns, conversations(config))
    seeds = len(config["experiment_seeds"])
    runs = seeds * len(config["overspecification"]["compare"])
    grid = config["overspecification"]["oracle"]
    mixed = examples * grid["lmbdas"]["count"] * (1 + len(grid["temperatures"])) * 6 * runs
    resampled = runs * 200 * 1000 * examples
    return Need(
        work=Work(steps=2e6, exponentials=mixed, moved=8 * resampled, torch=True),
        memory=2e8,
        disk=1e6,
    )
