"""The log-likelihood of tokens under a model's logits: natural logarithms, in float64."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LOGITS_AT_A_TIME = 1 << 22  # 32 MiB in float64


def log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """Return log p(target), (n,) float64 in nats, from logits (n, V) and token ids (n,)."""
    log_p = logits.double().log_softmax(dim=-1)
    return log_p.gather(-1, targets[:, None].to(logits.device)).squeeze(-1)


@torch.no_grad()
def log_likelihood_in_tiles(
    logits_of: Callable[[slice], Tensor],
    targets: Tensor,
    *,
    vocabulary: int,
    logits_at_a_time: int = LOGITS_AT_A_TIME,
) -> NDArray[np.float64]:
    """Return log p(target), (n,) in nats; logits exist for a tile of rows at a time, never for all.

    Args:
        logits_of: the logits (rows, V) of a slice of the n places.
        targets: (n,) int64.
        vocabulary: V.
        logits_at_a_time: that are held at once, at least one row of them.
    """
    tile = max(1, logits_at_a_time // vocabulary)
    found = np.empty(len(targets))
    for first in range(0, len(targets), tile):
        rows = slice(first, first + tile)
        found[rows] = log_likelihood(logits_of(rows), targets[rows]).cpu().numpy()
    return found
