"""Training on the key/value pairs of a datastore, whatever learns from them.

The LM is frozen: its hidden states are read from the datastore's shards, in the order of
`ShuffledPairs`, so that an update costs no forward pass of the LM.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knnlm.lm.training import Journal, Recipe, train
from knnlm.retrieval.pairs import ShuffledPairs

LOG_ROWS = 100  # rows of the log, about

Pairs = tuple[Tensor, Tensor]  # keys (n, d) and values (n,) int64


def n_updates(n_entries: int, *, epochs: int, batch_size: int) -> int:
    """Return the updates of a number of epochs, at least one; a last part of a batch is left."""
    return max(1, n_entries * epochs // batch_size)


def pair_recipe(settings: Mapping[str, Any], *, n_entries: int, seed: int) -> Recipe:
    """Return the recipe of a training on pairs, which its controls share.

    Args:
        settings: epochs, batch_size (pairs of an update), accumulation (parts in which an update
            is computed), optimizer, schedule, clip_norm and precision.
        n_entries: of the datastore.
        seed: of what is drawn.
    """
    epochs, batch_size = settings["epochs"], settings["batch_size"]
    return Recipe(
        steps=n_updates(n_entries, epochs=epochs, batch_size=batch_size),
        optimizer=settings["optimizer"],
        schedule=settings["schedule"],
        clip_norm=settings["clip_norm"],
        precision=settings["precision"],
        accumulation=settings["accumulation"],
        seed=seed,
    )


def train_on_shuffled(
    module: nn.Module,
    pairs: ShuffledPairs,
    *,
    loss: Callable[[nn.Module, Pairs], Tensor],
    vocabulary_size: int,
    settings: Mapping[str, Any],
    seed: int,
    partial: Path,
) -> list[dict[str, float]]:
    """Train a module in place on pairs, leave it in eval mode and return the log.

    Args:
        module: what learns.
        pairs: from wherever they come.
        loss: of the module and a batch, the mean over its pairs.
        vocabulary_size: V; every value is below it.
        settings: see `pair_recipe`, and save_every: updates between two states.
        seed: of what is drawn.
        partial: folder of the state that a killed training continues from.

    Raises:
        ValueError: if accumulation does not divide batch_size, a value is no token of the
            vocabulary, or see `train`.
    """
    accumulation = settings["accumulation"]
    if settings["batch_size"] % accumulation:
        raise ValueError(
            f"expected a batch_size that accumulation divides, got {settings['batch_size']:,} "
            f"and {accumulation}; change one of them in config.yaml"
        )
    size = settings["batch_size"] // accumulation

    def batch_at(number: int) -> Pairs:
        keys, values = pairs.pairs(number * size, (number + 1) * size)
        if values.max() >= vocabulary_size:
            raise ValueError(
                f"expected values below the vocabulary size {vocabulary_size:,}, got "
                f"{values.max():,}; the datastore was made with another tokenizer"
            )
        return torch.from_numpy(keys), torch.from_numpy(values)

    recipe = pair_recipe(settings, n_entries=pairs.n_entries, seed=seed)
    return train(
        module,
        recipe,
        batch_at=batch_at,
        loss=loss,
        journal=Journal(
            partial,
            save_every=settings["save_every"],
            log_every=math.ceil(recipe.steps / LOG_ROWS),
            tokens_per_update=settings["batch_size"],
        ),
    )
