"""The training of a language model: windows of the train split, next-token loss, one artifact."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from knnlm.lm.early_stopping import BEST, EarlyStopping
from knnlm.lm.gpt2 import LanguageModel
from knnlm.lm.model import create_model, load_model, save_model
from knnlm.lm.objectives import KIND as DISTRIBUTIONS
from knnlm.lm.objectives import Objective, objective_of, require_distributions
from knnlm.lm.process import this_process
from knnlm.lm.schedule import can_continue, tokens_per_update, trunk_step, updates
from knnlm.lm.training import STATE, Evaluation, Journal, Recipe, train
from knnlm.lm.windows import ShuffledWindows, windows
from knnlm.runtime.artifacts import atomic_path, identity, read_manifest, require_origin
from knnlm.runtime.making import Target, making
from knnlm.runtime.relations import SHAPE
from knnlm.text.tokenizer import copy_tokenizer
from knnlm.text.tokens import TokenStream, load_tokens

TRUNK = "trunk.safetensors"
LOG = "training.parquet"
VALIDATION_LOSS = "validation_loss"  # its column of the mean nll on validation
LOG_EVERY = 10  # updates between two rows of the log, the same for every length of training


def train_language_model(
    target: Target,
    *,
    tokens: Path,
    tokenizer: Path,
    model: dict[str, Any],
    trunk: Path | None = None,
    start: Path | None = None,
    teacher: Path | None = None,
    distributions: Path | None = None,
) -> None:
    """Train a model and write the model artifact.

    The artifact is a Hugging Face folder with the tokenizer, training.parquet (step, tokens,
    loss, lr, validation_loss; losses in nats per token) and, if the schedule has one, the trunk:
    the state up to which nothing depends on the length of the training.

    Args:
        target: the artifact; its seed is that of weights, order and dropout.
        tokens: the tokens artifact.
        tokenizer: the tokenizer artifact that the tokens were made with.
        model: the block of the config, with its training.
        trunk: the artifact of a model whose training this one continues, to the same end as
            from scratch; None begins at the beginning.
        start: the artifact of a model of the same shape, tokenizer and seed whose weights the
            training starts from, with a fresh optimizer and schedule; None draws them.
        teacher: of an objective of its own: the LM that it names.
        distributions: of an objective with a datastore: p_kNN of the train split.

    Raises:
        ValueError: if a split is too short for a window, the budget for an update, or this model
            cannot continue that one or start from it.
        ArtifactError: if the inputs are not whole or do not belong together.
    """
    made_from = {
        "tokens": identity(tokens, kind="tokens"),
        "tokenizer": identity(tokenizer, kind="tokenizer"),
    }
    require_origin(tokens, kind="tokens", role="tokenizer", expected=made_from["tokenizer"])
    if teacher is not None:
        made_from["teacher"] = identity(teacher, kind="model")
    if distributions is not None:
        made_from["distributions"] = identity(distributions, kind=DISTRIBUTIONS)
        origin = {"tokens": made_from["tokens"], "teacher": made_from["teacher"]}
        require_distributions(distributions, **origin)
    settings = {"model": model, "seed": target.seed}
    state = None if trunk is None else _trunk_of(trunk, settings=settings, made_from=made_from)
    if start is not None:
        _require_start(start, settings=settings, tokenizer=made_from["tokenizer"])
        made_from["start"] = identity(start, kind="model")
    main = this_process().is_main_process
    with making(
        target, kind="model", made_from=made_from, settings=settings, publishes=main
    ) as made:
        if not (made.folder / LOG).is_file():  # the log is written last
            network = _network(tokenizer, start=start, **settings)
            inputs = {"tokens": tokens, "tokenizer": tokenizer, "state": state}
            objective = _objective(model["training"], teacher, distributions)
            _train(made.folder, network, **inputs, **settings, objective=objective)
        if main:
            for left in (STATE, BEST):
                (made.folder / left).unlink(missing_ok=True)
            made.contents |= _counts(pd.read_parquet(made.folder / LOG), model)


def _counts(log: pd.DataFrame, model: dict[str, Any]) -> dict[str, int]:
    """Return the updates of a training, and the tokens of train that its model has read."""
    early_stopping = _early_stopping(model["training"])
    last = int(log["step"].iloc[-1])
    if early_stopping is None:
        return {"updates": last, "tokens": last * tokens_per_update(model)}
    evaluated = log.dropna(subset=[early_stopping.metric]).to_dict("records")
    best = early_stopping.best_step(evaluated)
    return {"updates": best, "tokens": best * tokens_per_update(model), "stopped_after": last}


def _early_stopping(training: dict[str, Any]) -> EarlyStopping | None:
    settings = training["early_stopping"]
    return None if settings is None else EarlyStopping(VALIDATION_LOSS, settings["patience"])


def _trunk_of(folder: Path, *, settings: dict[str, Any], made_from: dict[str, str]) -> Path:
    """Return the trunk of a finished model after checking that another may grow from it."""
    base = read_manifest(folder, kind="model")["settings"]
    if not can_continue(base["model"], settings["model"]) or base["seed"] != settings["seed"]:
        raise ValueError(
            f"expected {folder} to be a shorter training of the same model, seed and schedule; "
            "only training.tokens may differ, and the schedule must have a constant part"
        )
    for role, expected in made_from.items():
        require_origin(folder, kind="model", role=role, expected=expected)
    return folder / TRUNK


def _require_start(folder: Path, *, settings: dict[str, Any], tokenizer: str) -> None:
    """Check that the weights of a finished model fit another."""
    base = read_manifest(folder, kind="model")["settings"]
    shapes = [{key: of.get(key) for key in SHAPE} for of in (base["model"], settings["model"])]
    if shapes[0] != shapes[1] or base["seed"] != settings["seed"]:
        raise ValueError(
            f"expected {folder} to be a model of the shape {shapes[1]} and seed "
            f"{settings['seed']}, got {shapes[0]} and seed {base['seed']}"
        )
    require_origin(folder, kind="model", role="tokenizer", expected=tokenizer)


def _network(
    tokenizer: Path, *, model: dict[str, Any], seed: int, start: Path | None
) -> LanguageModel:
    """Return the model before its first update."""
    described = read_manifest(tokenizer, kind="tokenizer")["contents"]
    network = create_model(
        model,
        vocabulary_size=described["vocabulary_size"],
        end_of_document=described["end_of_document"],
        seed=seed,
    )
    if start is not None:
        network.load_state_dict(load_model(start).state_dict())
    return network


def _train(
    partial: Path,
    network: LanguageModel,
    *,
    tokens: Path,
    tokenizer: Path,
    model: dict[str, Any],
    seed: int,
    state: Path | None,
    objective: Objective,
) -> None:
    training, context = model["training"], model["context"]
    steps = updates(model)
    if steps < 1:
        raise ValueError(
            f"training.tokens of {training['tokens']:,} do not pay for one update of "
            f"{tokens_per_update(model):,} tokens; raise them in config.yaml"
        )
    streams = {name: _stream(tokens, name, context=context) for name in ("train", "validation")}
    every, shared = training["validate_every"], trunk_step(model)
    rows = train(
        network,
        Recipe(steps=steps, seed=seed, **_recipe(training)),
        batch_at=_batches(streams["train"], model, objective, seed=seed),
        loss=objective.loss,
        journal=Journal(
            partial,
            save_every=training["save_every"],
            log_every=LOG_EVERY,
            tokens_per_update=tokens_per_update(model),
            start=state,
            keep_state_at={} if shared is None else {shared: partial / TRUNK},
        ),
        evaluation=Evaluation(
            _validation(network, streams["validation"], training),
            at={*range(every, steps, every), steps},
            early_stopping=_early_stopping(training),
        ),
    )
    if this_process().is_main_process:
        _save(
            partial, network, rows, tokenizer=tokenizer, tokens_an_update=tokens_per_update(model)
        )


def _recipe(training: dict[str, Any]) -> dict[str, Any]:
    names = ("optimizer", "schedule", "clip_norm", "precision", "accumulation")
    return {name: training[name] for name in names}


def _stream(tokens: Path, split: str, *, context: int) -> TokenStream:
    stream = load_tokens(tokens, split)
    if stream.n_tokens < context + 1:
        raise ValueError(
            f"expected the {split} split to have at least {context + 1:,} tokens (one window of "
            f"the model's context and its last target), got {stream.n_tokens:,}; use more text "
            "or lower the model's context in config.yaml"
        )
    return stream


def _objective(
    training: dict[str, Any], teacher: Path | None, distributions: Path | None
) -> Objective:
    """Return what is minimized: the nll of the text, unless the settings say otherwise."""
    if teacher is None:
        return Objective(lambda ids, starts: ids, next_token_loss)
    return objective_of(training["objective"], teacher=teacher, distributions=distributions)


def _batches(
    stream: TokenStream, model: dict[str, Any], objective: Objective, *, seed: int
) -> Callable[[int], Any]:
    context, size = model["context"], model["training"]["batch_size"]
    order = ShuffledWindows(stream.n_tokens, context=context, seed=seed)

    def batch_at(number: int) -> Any:
        starts = order.starts(number * size, size)
        return objective.batch(read(stream.tokens, starts, context + 1), starts)

    return batch_at


def read(tokens: NDArray[np.unsignedinteger], starts: NDArray[np.int64], length: int) -> Tensor:
    """Return the pieces (n, length), int64, of a token stream that begin at (n,) starts."""
    return torch.from_numpy(tokens[starts[:, None] + np.arange(length)].astype(np.int64))


def next_token_loss(module: nn.Module, batch: Tensor) -> Tensor:
    """Return the mean nll, in nats, of each token of (B, T + 1) given those before it."""
    logits = module(input_ids=batch[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def _validation(
    network: nn.Module, stream: TokenStream, training: dict[str, Any]
) -> Callable[[int], dict[str, float]]:
    """Return the evaluation of a training: the mean nll over the first validation tokens."""
    context = network.config.max_position_embeddings
    n_tokens = min(training["validation_tokens"] or stream.n_tokens, stream.n_tokens)
    cut = windows(max(n_tokens, context + 1) - 1, context=context, stride=context)
    starts = np.array([window.start for window in cut])
    skipped = np.array([window.first - window.start for window in cut])
    size = training["batch_size"]

    def evaluate(step: int) -> dict[str, float]:
        nll, count = 0.0, 0
        for at in range(0, len(starts), size):
            batch = read(stream.tokens, starts[at : at + size], context + 1).to(network.device)
            logits = network(input_ids=batch[:, :-1], use_cache=False).logits.flatten(0, 1)
            losses = functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="none")
            # The last window overlaps the one before: each token counts once.
            new = torch.arange(context) >= torch.from_numpy(skipped[at : at + size])[:, None]
            nll += losses.cpu()[new.flatten()].double().sum().item()
            count += int(new.sum())
        return {VALIDATION_LOSS: nll / count}

    return evaluate


def _save(
    partial: Path,
    network: nn.Module,
    rows: list[dict[str, float]],
    *,
    tokenizer: Path,
    tokens_an_update: int,
) -> None:
    save_model(network.cpu(), partial)
    copy_tokenizer(tokenizer, partial)
    table = pd.DataFrame(rows, columns=["step", "loss", "lr", VALIDATION_LOSS])
    table.insert(1, "tokens", table["step"] * tokens_an_update)
    with atomic_path(partial / LOG) as temporary:
        table.to_parquet(temporary, index=False)
