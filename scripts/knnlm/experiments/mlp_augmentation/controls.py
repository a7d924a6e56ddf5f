"""What a replacement is compared with: the LM trained on by as much, without any replacement.

A replacement is also more training, of layers much like the LM's last ones, on the same text. So
`last_layers` trains the LM's own last MLP, final norm and head by as many updates of as many
tokens; `whole_model` trains all of the LM for as many FLOPs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from knnlm.experiments.mlp_augmentation.continuation import continue_training
from knnlm.experiments.mlp_augmentation.cost import (
    flops_of_model,
    flops_of_replacement,
    replacement_of,
)
from knnlm.lm.model import load_model
from knnlm.retrieval.pair_training import n_updates
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target
from knnlm.text.tokens import load_tokens

BUDGET_HEAD = "lm_head_trained"  # the replacement whose FLOPs `whole_model` gets


def train_control(
    target: Target, *, model: Path, tokens: Path, settings: Mapping[str, Any]
) -> None:
    """Train the finished LM on by as much as a replacement is trained, and publish it.

    Args:
        target: the model artifact; its `control` is last_layers or whole_model, and its seed
            that of order and dropout.
        model: the finished LM.
        tokens: the token streams; the train split is the one of the datastore.
        settings: those of the replacement, see `train_on_pairs`; optimizer and schedule are the
            controls' as well.
    """
    control = target.names["control"]
    n_entries = load_tokens(tokens, "train").n_tokens - 1
    updates = n_updates(n_entries, epochs=settings["epochs"], batch_size=settings["batch_size"])
    if control == "whole_model":
        updates = equal_flops_updates(load_model(model), updates, settings=settings)
    LOGGER.info("%s: %s updates", control, f"{updates:,}")
    continue_training(target, model=model, tokens=tokens, updates=updates, settings=settings)


def equal_flops_updates(lm: nn.Module, updates: int, *, settings: Mapping[str, Any]) -> int:
    """Return the updates of the whole LM that cost what training a replacement does, at least one.

    Encoding the keys is not counted: retrieval needs them as well.

    Args:
        lm: the LM.
        updates: of the replacement, of as many pairs as an update of the LM has tokens.
        settings: of the replacement.
    """
    replacement = flops_of_replacement(replacement_of(lm, BUDGET_HEAD, settings))
    return max(1, round(updates * replacement.training / flops_of_model(lm).training))
