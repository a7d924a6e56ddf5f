"""A finished LM, trained on: the controls of what is put beside it.

`last_layers` trains what computes the logits from the residual stream before the last MLP: its
norm, the MLP, the final norm and the head, on a head of its own if it was tied to the embedding.
Everything below is frozen and reads without dropout, as it did for the keys of a datastore.
`whole_model` trains everything as it was.
"""

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from knnlm.lm.anatomy import (
    apply_f,
    apply_g,
    architecture,
    capture,
    context,
    final_norm,
)
from knnlm.lm.architecture import FFN_INPUT_BEFORE
from knnlm.lm.model import load_model, save_model
from knnlm.lm.pretraining import next_token_loss, read
from knnlm.lm.process import this_process
from knnlm.lm.training import STATE, Journal, Recipe, train
from knnlm.lm.windows import ShuffledWindows
from knnlm.runtime.artifacts import (
    atomic_path,
    copy_file,
    identity,
    read_manifest,
    require_origin,
)
from knnlm.runtime.making import Target, making
from knnlm.text.tokens import load_tokens

CONTINUATIONS = ("last_layers", "whole_model")
LOG = "training.parquet"
LOG_ROWS = 100  # rows of the log, about


class LastLayers(nn.Module):
    """What computes the logits from the residual stream before the last MLP: f of g."""

    def __init__(self, model: nn.Module) -> None:
        """Take the parts of a model; its other parameters are frozen.

        Args:
            model: its head is its own, see `untied`.
        """
        super().__init__()
        names = architecture(model)
        block = getattr(getattr(model, names.backbone), names.layers)[-1]
        model.requires_grad_(False)
        self.parts = nn.ModuleList(
            [
                getattr(block, names.mlp_norm),
                getattr(block, names.mlp),
                final_norm(model),
                model.get_output_embeddings(),
            ]
        ).requires_grad_(True)
        self.whole = (model,)  # in a tuple, it is no part of this module

    def forward(self, residual: Tensor) -> Tensor:
        """Return the logits (..., V) of the residual stream (..., d)."""
        return apply_f(self.whole[0], apply_g(self.whole[0], residual))


def untied(model: nn.Module) -> nn.Module:
    """Return the same model with a head of its own, a copy of the embedding if it was tied."""
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    with torch.random.fork_rng(devices=[]):
        separate = type(model)(config)
    separate.load_state_dict(model.state_dict())
    return separate.eval()


def continue_training(
    target: Target, *, model: Path, tokens: Path, updates: int, settings: Mapping[str, Any]
) -> None:
    """Train a finished LM on and write the result as a model artifact.

    Args:
        target: its `control` is last_layers or whole_model, and its seed that of the order of
            the text and of dropout.
        model: the finished LM.
        tokens: the token streams, made with its tokenizer.
        updates: how many.
        settings: batch_size (tokens of an update), accumulation, optimizer, schedule, clip_norm,
            precision and save_every.

    Raises:
        ValueError: if the continuation is unknown, or a batch is not cut into whole windows.
        ArtifactError: if the model has another tokenizer.
    """
    continuation, seed = target.names["control"], target.seed
    if continuation not in CONTINUATIONS:
        raise ValueError(f"expected one of {', '.join(CONTINUATIONS)}, got {continuation}")
    tokenizer = read_manifest(tokens, kind="tokens")["made_from"]["tokenizer"]
    require_origin(model, kind="model", role="tokenizer", expected=tokenizer)
    leads = this_process().is_main_process
    with making(
        target,
        kind="model",
        made_from={
            "tokens": identity(tokens, kind="tokens"),
            "tokenizer": tokenizer,
            "continued": identity(model, kind="model"),
        },
        settings={"continuation": continuation, "training": dict(settings), "seed": seed},
        publishes=leads,
    ) as made:
        if not (made.folder / LOG).is_file():  # the log is written last
            network = load_model(model)
            network = untied(network) if continuation == "last_layers" else network
            batch_at = _batches(tokens, context(network), settings=settings, seed=seed)
            recipe = _recipe(settings, updates=updates, seed=seed)
            rows = _train(network, continuation, batch_at, recipe, settings, made.folder)
            if leads:
                _save(made.folder, network.cpu(), rows, model=model)
        if leads:
            (made.folder / STATE).unlink(missing_ok=True)
        made.contents |= {"updates": updates, "tokens": updates * settings["batch_size"]}


def _train(
    network: nn.Module,
    continuation: str,
    batch_at: Callable[[int], Tensor],
    recipe: Recipe,
    settings: Mapping[str, Any],
    partial: Path,
) -> list[dict[str, float]]:
    last = continuation == "last_layers"
    return train(
        LastLayers(network) if last else network,
        recipe,
        batch_at=batch_at,
        loss=_last_layers_loss(network) if last else next_token_loss,
        journal=Journal(
            partial,
            save_every=settings["save_every"],
            log_every=math.ceil(recipe.steps / LOG_ROWS),
            tokens_per_update=settings["batch_size"],
        ),
    )


def _last_layers_loss(network: nn.Module) -> Callable[[nn.Module, Tensor], Tensor]:
    def loss(module: nn.Module, batch: Tensor) -> Tensor:
        network.to(batch.device)
        residual = capture(network, batch[:, :-1], [FFN_INPUT_BEFORE])[FFN_INPUT_BEFORE]
        return functional.cross_entropy(module(residual).flatten(0, 1), batch[:, 1:].flatten())

    return loss


def _batches(
    tokens: Path, length: int, *, settings: Mapping[str, Any], seed: int
) -> Callable[[int], Tensor]:
    size, rest = divmod(settings["batch_size"], settings["accumulation"] * length)
    if rest:
        raise ValueError(
            "expected a batch_size of whole windows of the model's context in each of "
            f"{settings['accumulation']} parts, got {settings['batch_size']:,} tokens and a "
            f"context of {length:,}; change batch_size in config.yaml"
        )
    stream = load_tokens(tokens, "train")
    order = ShuffledWindows(stream.n_tokens, context=length, seed=seed)
    return lambda number: read(stream.tokens, order.starts(number * size, size), length + 1)


def _recipe(settings: Mapping[str, Any], *, updates: int, seed: int) -> Recipe:
    names = ("optimizer", "schedule", "clip_norm", "precision", "accumulation")
    return Recipe(steps=updates, seed=seed, **{name: settings[name] for name in names})


def _save(partial: Path, network: nn.Module, rows: list[dict[str, float]], *, model: Path) -> None:
    save_model(network, partial)
    for file in sorted(model.iterdir()):
        if file.name.startswith("tokenizer"):
            copy_file(file, partial / file.name)
    with atomic_path(partial / LOG) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
