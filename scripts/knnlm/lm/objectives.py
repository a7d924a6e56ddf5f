"""What else than the nll of its text an LM can be trained on: a teacher's words, a mixture's loss.

Xu et al. (2023) ask whether kNN helps as soft labels do, or because an LM is not trained for the
mixture; Yang et al. (2022) train on what a kNN-LM says of the training text. p_kNN of the train
split is found once, each position without itself (`knnlm.retrieval.train_distributions`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from knnlm.lm.model import load_model
from knnlm.lm.process import this_process
from knnlm.runtime.artifacts import (
    ArtifactError,
    load_array,
    read_manifest,
    rebuild_hint,
    require_origin,
)

KIND = "train_distributions"  # of p_kNN of the train split
DTYPES = {"values": np.int32, "probabilities": np.float32, "target_probabilities": np.float64}
POSITIONS = "positions.npy"  # ascending, those that have a distribution
SMALLEST = 1e-30  # a probability of 0 has no logarithm in fp32


class Batch(NamedTuple):
    """Windows of a text with the p_kNN of their positions; what is not there has width 0.

    `ids` (B, T + 1); `values` and `probabilities` (B, T, m), the likeliest tokens of p_kNN;
    `target_probabilities` (B, T), p_kNN of the token that did follow.
    """

    ids: Tensor
    values: Tensor
    probabilities: Tensor
    target_probabilities: Tensor


@dataclass(frozen=True)
class TrainDistributions:
    """p_kNN of the positions of a train split that are trained on, memory-mapped, and its weight.

    Attributes:
        folder: the artifact.
        lmbda: of the kNN-LM, tuned on validation.
        positions: (n,) int64, ascending: tokens of the stream; the token after each is its target.
        values: (n, m) int32, the likeliest tokens; where there are fewer, beside probability 0.
        probabilities: (n, m) float32, theirs; what is left to 1 is that of other tokens.
        target_probabilities: (n,) float64, of the token that did follow, whatever its rank.
    """

    folder: Path
    lmbda: float
    positions: NDArray[np.int64]
    values: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    target_probabilities: NDArray[np.float64]

    @classmethod
    def load(cls, folder: Path) -> "TrainDistributions":
        """Open the artifact.

        Raises:
            ArtifactError: if it is not whole.
        """
        settings = read_manifest(folder, kind=KIND)["settings"]
        arrays = {name: load_array(folder / f"{name}.npy", dtype=d) for name, d in DTYPES.items()}
        positions = load_array(folder / POSITIONS, dtype=np.int64)
        return cls(folder, settings["lmbda"], positions, **arrays)

    def at(self, ids: Tensor, starts: NDArray[np.int64]) -> Batch:
        """Return windows (B, T + 1) that begin at (B,) starts, with p_kNN of their positions.

        Raises:
            ArtifactError: if one of them has none.
        """
        wanted = starts[:, None] + np.arange(ids.shape[1] - 1)
        places = np.searchsorted(self.positions, wanted).clip(max=len(self.positions) - 1)
        if not np.array_equal(self.positions[places], wanted):
            raise ArtifactError(
                f"expected {self.folder} to have p_kNN of every position that is trained on, it "
                f"lacks some of windows at {starts.tolist()}; {rebuild_hint(self.folder)}"
            )
        found = (getattr(self, name)[places] for name in DTYPES)
        values, probabilities, target = (torch.from_numpy(array) for array in found)
        return Batch(ids, values.long(), probabilities, target.float())


def soft_label_loss(log_probs: Tensor, teacher: Tensor, batch: Batch, lmbda: float) -> Tensor:
    """Return the mean cross-entropy, in nats, of an LM to the distribution of a kNN-LM.

    The teacher is lmbda p_kNN + (1 - lmbda) p_LM. Of p_kNN the likeliest tokens are kept; what the
    others had goes to p_LM, so that the distribution sums to 1.

    Args:
        log_probs: (B, T, V) of the LM that is trained.
        teacher: (B, T, V), p_LM of the teacher.
        batch: with the kept tokens of p_kNN, none for the LM alone.
        lmbda: weight on p_kNN.
    """
    kept = lmbda * batch.probabilities
    labels = teacher * (1 - kept.sum(dim=-1, keepdim=True))
    labels = labels.scatter_add(-1, batch.values, kept)
    return -(labels * log_probs).sum(dim=-1).mean()


def interpolated_loss(log_probs: Tensor, batch: Batch, lmbda: float) -> Tensor:
    """Return the mean nll, in nats, of lmbda p_kNN + (1 - lmbda) p_LM with p_kNN fixed.

    Args:
        log_probs: (B, T, V) of the LM that is trained.
        batch: with p_kNN of the targets.
        lmbda: weight on p_kNN.
    """
    own = log_probs.gather(-1, batch.ids[:, 1:, None]).squeeze(-1)
    knn = batch.target_probabilities.clamp_min(SMALLEST).log()
    return -torch.logaddexp(np.log1p(-lmbda) + own, np.log(lmbda) + knn).mean()


@dataclass(frozen=True)
class Objective:
    """What is minimized, and the batches that it takes.

    Attributes:
        batch: of windows (B, T + 1) and their (B,) starts.
        loss: of the LM that is trained and a batch.
    """

    batch: Callable[[Tensor, NDArray[np.int64]], Any]
    loss: Callable[[nn.Module, Any], Tensor]


def objective_of(
    settings: Mapping[str, Any], *, teacher: Path, distributions: Path | None
) -> Objective:
    """Return the objective of a training.

    Args:
        settings: the block `objective` of the training.
        teacher: folder of the LM whose distributions are the labels.
        distributions: p_kNN of the train split.
    """
    found = None if distributions is None else TrainDistributions.load(distributions)
    lmbda = 0.0 if found is None else found.lmbda

    def batch(ids: Tensor, starts: NDArray[np.int64]) -> Batch:
        if found is not None:
            return found.at(ids, starts)
        none = torch.zeros(*ids[:, 1:].shape, 0)
        return Batch(ids, none.long(), none, torch.zeros(0))

    def log_probs(module: nn.Module, ids: Tensor) -> Tensor:
        return module(input_ids=ids[:, :-1], use_cache=False).logits.log_softmax(dim=-1)

    if settings["name"] == "interpolated_loss":
        return Objective(
            batch, lambda module, at: interpolated_loss(log_probs(module, at.ids), at, lmbda)
        )
    network = load_model(teacher).requires_grad_(requires_grad=False).to(this_process().device)

    def loss(module: nn.Module, at: Batch) -> Tensor:
        with torch.no_grad():
            labels = log_probs(network, at.ids).exp()
        return soft_label_loss(log_probs(module, at.ids), labels, at, lmbda)

    return Objective(batch, loss)


def require_distributions(distributions: Path, *, tokens: str, teacher: str) -> None:
    """Check that p_kNN is of the text that is trained on, and of the keys of the teacher.

    Args:
        distributions: the artifact.
        tokens: identity of the token streams.
        teacher: identity of the LM.

    Raises:
        ArtifactError: naming the artifact.
    """
    require_origin(distributions, kind=KIND, role="model", expected=teacher)
    require_origin(distributions, kind=KIND, role="tokens", expected=tokens)
