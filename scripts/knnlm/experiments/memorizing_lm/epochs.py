"""Training losses by epoch, from the log that every training keeps."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.runtime.artifacts import read_manifest
from knnlm.runtime.places import Places

LOG = "training.parquet"  # of a model artifact


class Losses(NamedTuple):
    """Training losses of one LM.

    Attributes:
        epochs: (n,), counted from 1, with those of the weights that it started from.
        losses: (n,), the mean over what was read in each of them, in nats per token.
        tokens: (n,), how many tokens that were.
        last: the mean over as many last tokens as train has.
        read: tokens of train that the weights have seen in all.
    """

    epochs: NDArray[np.int64]
    losses: NDArray[np.float64]
    tokens: NDArray[np.int64]
    last: float
    read: int


def losses_of(models: Places, model: str, seed: int, *, epoch: int) -> Losses:
    """Return the training losses of a model.

    Args:
        models: the artifacts of models; one that a model started from is among them.
        model: its name.
        seed: of its training.
        epoch: tokens of the train split.
    """
    folder = models[model, seed]
    return by_epoch(pd.read_parquet(folder / LOG), epoch=epoch, before=_before(models, folder))


def _before(models: Places, folder: Path) -> int:
    """Return the tokens that the weights had seen when a training began."""
    settings = read_manifest(folder, kind="model")["settings"]
    if "starts_from" not in settings["model"]:
        return 0
    start = models[settings["model"]["starts_from"], settings["seed"]]
    return _before(models, start) + read_manifest(start, kind="model")["contents"]["tokens"]


def by_epoch(log: pd.DataFrame, *, epoch: int, before: int = 0) -> Losses:
    """Return the losses of a log by epoch.

    A row of the log is the mean over the tokens since the row before, and counts with the epoch
    in which the middle of them lies.

    Args:
        log: with the columns tokens and loss.
        epoch: tokens of an epoch.
        before: tokens that had been read when the log begins.
    """
    log = log.dropna(subset=["loss"])
    ends, losses = log["tokens"].to_numpy(np.int64), log["loss"].to_numpy(np.float64)
    weights = np.diff(ends, prepend=0)
    numbers = (before + ends - weights // 2) // epoch
    names, place = np.unique(numbers, return_inverse=True)
    tokens = np.bincount(place, weights=weights)
    sums = np.bincount(place, weights=weights * losses)
    latest = ends > ends[-1] - epoch
    return Losses(
        epochs=names + 1,
        losses=sums / tokens,
        tokens=tokens.astype(np.int64),
        last=float(np.average(losses[latest], weights=weights[latest])),
        read=before + int(ends[-1]),
    )
