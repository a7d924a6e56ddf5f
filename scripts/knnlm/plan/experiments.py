"""The needs of the experiments: what they train, solve, score and draw.

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
from knnlm.plan.pipeline import (
    SPLITS,
    base_model,
    documents_scored,
)
from knnlm.plan.retrieval import compare
from knnlm.plan.sizes import (
    CONVERSATION,
    SENTENCE,
    added_names,
    conversations,
    fine_tuned_shape,
    parameters,
    queries,
    sentences,
    vocabulary,
)
from knnlm.plan.work import Work, product

# Counts that depend on what is found, from generated text at the scale `cpu`: the paper's walk
# settles after 34 to 69 updates; an optimum takes 3 to 13 evaluations, about 9, for each dimension
# of its head, on average with half of the queries still in the batch.
SETTLED_STEPS = 50
EVALUATIONS = 4.6  # of whole batches, for each dimension of a head
IN_DOUBLE = 0.3  # of them, in float64
GRID_VALUES = 6  # values moved for each query, neighbor and temperature of a sweep
DRAW = Work(steps=1e8)  # a figure in SVG and PNG
KEPT_POINTS = 3  # of a fine-tuning, for the MLP
CHAT_TRAININGS = ("train", "test")


def plain(config: Config, wildcards: Wildcards) -> Need:
    """Read a table and draw it."""
    return Need(work=DRAW, memory=1e8, disk=1e6)


models(
    "plot_knn_perplexity",
    "plot_softmax_bottleneck",
    "plot_overspecification",
    "plot_conversational",
    "plot_mlp_augmentation",
    "plot_mlp_hurdle",
)(plain)


@models("build_macondo", "build_macondo_chat")
def build_macondo(config: Config, wildcards: Wildcards) -> Need:
    """Write a town."""
    town = wildcards.get("town")
    examples = sentences(config, town) if town else conversations(config)
    return Need(work=Work(steps=2000 * examples, written=4000 * examples), disk=4000 * examples)


@models("evaluate_knn_perplexity")
def evaluate_knn_perplexity(config: Config, wildcards: Wildcards) -> Need:
    """Sweep k, temperature and lmbda over stored neighbors, and resample documents."""
    settings, k = config["knn_perplexity"], config["search"]["k"]
    grid, seeds = settings["grid"], len(config["lm_seeds"])
    count = {split: queries(config, split) for split in ("validation", "test")}
    temperatures, depths = grid["temperatures"]["count"], len(grid["k"])
    n_indexes = len(settings["indexes"])
    values = count["validation"] * temperatures * (k + depths * grid["lmbdas"]["count"])
    swept = Work(exponentials=values, moved=4 * GRID_VALUES * values) * n_indexes
    curves = Work(exponentials=count["test"] * temperatures * k)
    resampled = settings["bootstrap"]["samples"] * documents_scored(config, "test") * 12
    stored = sum(count.values()) * k * 16
    work = (swept + curves + Work(moved=8 * resampled, read=n_indexes * stored)) * seeds
    return Need(work=work + Work(steps=2e6, torch=True), memory=6 * stored, disk=1e6)


def _mixtures(config: Config) -> tuple[int, Mapping[str, Any], int]:
    return (
        config["softmax_bottleneck"]["positions"],
        config["models"][base_model(config)],
        (vocabulary(config)),
    )


@models("project_distributions")
def project_distributions(config: Config, wildcards: Wildcards) -> Need:
    """Walk from every start in both directions with Adam, step by step."""
    settings = config["softmax_bottleneck"]
    n, model, size = _mixtures(config)
    name = wildcards["last_layers"]
    starts = 1 if name == "f_g" else 2
    walks = [
        SETTLED_STEPS if block["tolerance"] else block["max_steps"]
        for block in settings["optimizers"].values()
    ]
    steps = 2 * starts * sum(min(SETTLED_STEPS, w) if w > SETTLED_STEPS else w for w in walks)
    if name != "head":
        steps += len(settings["long"]["lrs"]) * settings["long"]["steps"]
    d, tile = model["width"], settings["tile"]
    one = product(tile, d, size)
    if name == "f_g":
        one = one + product(tile, d, 2 * model["ffn_width"])
    # The KL and its gradient: both log-probabilities, their difference, products and sums.
    values = 4 * n * (16 * size + 20 * d)
    again = 2.0 if n > tile else 0.0  # p is put together at each step
    once = Work(moved=values * (1 + again), exponentials=2 * n * size * (1 + again), operations=80)
    products = backward_too(one, gradients=1) * (n / tile)
    return Need(
        work=(products + once) * steps + Work(torch=True),
        memory=4 * parameters(model, size),
        device=16 * tile * size * 6,
        disk=1e3 * n,
        threads="fine_tune",
        gpu=True,
    )


@models("project_on_heads")
def project_on_heads(config: Config, wildcards: Wildcards) -> Need:
    """Solve the convex problem of every head, in float32 and then in float64."""
    settings = config["softmax_bottleneck"]
    n, model, size = _mixtures(config)
    widths = [model["width"], *settings["ranks"], model["width"]]
    widths += [config["models"][name]["width"] for name in settings["heads"]]
    tile, total = settings["tile"], Work(torch=True)
    for width in widths:
        pair = product(tile, width, 2 * size) * (n / tile)
        values = 4 * n * 8 * size
        single = pair + Work(moved=values, exponentials=n * size, operations=60)
        double = Work(doubles=pair.flops, moved=2 * values, exponentials=2 * n * size)
        count = min(EVALUATIONS * width, settings["optimum"]["max_evaluations"] / 2)
        total = total + single * (count * (1 - IN_DOUBLE)) + double * (count * IN_DOUBLE)
    memory = 16 * tile * size * 4 + 24 * size * max(widths) + 160 * n * max(widths)
    return Need(work=total, device=memory, disk=1e4 * n, threads="fine_tune", gpu=True)


@models("explorer")
def explorer(config: Config, wildcards: Wildcards) -> Need:
    """Read the neighbors and states of some passages."""
    stored = queries(config, "test") * config["search"]["k"] * 16
    return Need(work=Work(read=stored, steps=1e7, torch=True), memory=3 * stored, disk=1e6)


@models("evaluate_softmax_bottleneck")
def evaluate_softmax_bottleneck(config: Config, wildcards: Wildcards) -> Need:
    """Score every projection, and resample its documents."""
    settings = config["softmax_bottleneck"]
    rows = 300 * len(config["lm_seeds"])
    samples = config["knn_perplexity"]["bootstrap"]["samples"]
    stored = queries(config, "test") * config["search"]["k"] * 16
    work = Work(moved=8 * rows * samples * min(settings["positions"], 400), read=stored)
    return Need(work=work + Work(steps=2e6, torch=True), memory=3 * stored, disk=1e6)


@models("finetune_macondo")
def finetune_macondo(config: Config, wildcards: Wildcards) -> Need:
    """Fine-tune on sentences; at some points score the names, alone and with retrieval."""
    name, settings = wildcards["fine_tuning"], config["overspecification"]
    shape = fine_tuned_shape(config, name)
    block = settings["fine_tunings"][name]
    examples = sentences(config, block["town"])
    size = shape["vocabulary"] + added_names(config["macondo"]["towns"][block["town"]], examples)
    fit = fine_tuning(shape, size, block, examples=examples, length=SENTENCE["train"])
    read = sum(examples * SENTENCE[split] for split in SPLITS)
    entries = examples * (SENTENCE["train"] - 1)
    span = SENTENCE["train"]
    point = forward(shape, size, read, span=span, scored=3 * examples, passes=read / 64 / span)
    k = min(settings["k"], entries)
    temperatures = 1 + len(settings["oracle"]["temperatures"])
    found = 3 * examples * k
    point = point + compare(3 * examples, entries, shape["width"])
    point = point + Work(
        moved=found * (4 * shape["width"] + 240 + 30 * temperatures),
        exponentials=found * temperatures,
    )
    kept = 4 * (entries * shape["width"] + size * shape["width"])
    return Need(
        work=fit.work + point * settings["points"] + Work(written=3 * kept),
        memory=fit.memory + 3 * kept + 12 * found,
        device=fit.device,
        disk=KEPT_POINTS * kept,
        scratch=fit.scratch,
        threads="fine_tune",
        gpu=True,
        half=half_precision(block["precision"]),
    )


def fine_tuning(
    shape: Mapping[str, Any], size: int, block: Mapping[str, Any], *, examples: int, length: float
) -> Need:
    """Return what training on short texts needs, by an entry of fine_tunings."""
    batch = min(block["batch_size"], examples)
    updates = block["epochs"] * -(-examples // block["batch_size"])
    count = parameters(shape, size)
    trained = count
    if block["lora"] is not None:
        trained = 2 * block["lora"]["rank"] * 8 * shape["width"] * shape["layers"]
    work = training(
        shape,
        size,
        updates=updates,
        tokens_per_update=batch * length,
        span=length,
        trained=trained,
    )
    states = 0.75 * state_bytes(trained)
    return Need(
        work=work + Work(written=states * updates / block["save_every"]),
        memory=4 * count + 0.5 * state_bytes(trained),
        device=4 * count
        + state_bytes(trained)
        + activations(
            shape,
            size,
            batch * length,
            scored=batch * length,
            half=half_precision(block["precision"]),
        ),
        scratch=states,
    )


@models("train_macondo_mlp")
def train_macondo_mlp(config: Config, wildcards: Wildcards) -> Need:
    """Train an MLP for each of three points, and ask it and the datastore every test token."""
    settings = config["overspecification"]
    shape = fine_tuned_shape(config, wildcards["fine_tuning"])
    town = settings["fine_tunings"][wildcards["fine_tuning"]]["town"]
    examples = sentences(config, town)
    size = shape["vocabulary"] + added_names(config["macondo"]["towns"][town], examples)
    entries, mlp = examples * (SENTENCE["train"] - 1), settings["mlp"]
    frozen = mlp["head"] == "lm_head_frozen"
    batch = min(mlp["batch_size"], entries)
    width = shape["width"]
    work = mlp_training(
        width, mlp["hidden"], size, pairs=entries * mlp["epochs"], batch=batch, frozen=frozen
    )
    asked = examples * SENTENCE["test"]
    work = work + compare(asked, entries, width) + product(asked, width, size)
    work = work + Work(moved=asked * min(settings["k"], entries) * (4 * width + 240))
    count = 2 * width * mlp["hidden"] + (0 if frozen else size * width)
    return Need(
        work=work * KEPT_POINTS,
        memory=0.5 * state_bytes(count) + 8 * entries * width,
        device=state_bytes(count) + 16 * batch * size,
        disk=1e3 * examples,
        scratch=12 * count,
        threads="fine_tune",
        gpu=True,
    )


@models("finetune_conversational")
def finetune_conversational(config: Config, wildcards: Wildcards) -> Need:
    """Fine-tune on the train and on the test questions; score all answers after each epoch."""
    name = wildcards["fine_tuning"]
    shape = fine_tuned_shape(config, name)
    examples = conversations(config)
    size = shape["vocabulary"] + added_names(config["macondo_conv"], examples)
    block = config["overspecification"]["fine_tunings"][name]
    total, fits = Work(), []
    for split in CHAT_TRAININGS:
        length = CONVERSATION[split]
        fit = fine_tuning(shape, size, block, examples=examples, length=length)
        read = sum(CONVERSATION.values()) * examples
        once = forward(shape, size, read, span=length, passes=max(1, read / 64 / length))
        total = total + fit.work + once * block["epochs"]
        fits.append(fit)
    return Need(
        work=total,
        memory=max(fit.memory for fit in fits),
        device=max(fit.device for fit in fits),
        disk=60 * examples * block["epochs"] * 2,
        scratch=max(fit.scratch for fit in fits),
        threads="fine_tune",
        gpu=True,
        half=half_precision(block["precision"]),
    )
