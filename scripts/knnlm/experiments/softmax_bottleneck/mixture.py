"""The kNN-LM's distributions of many contexts, never stored over the vocabulary.

p = (1 - lmbda) p_LM + lmbda p_kNN is put together again for one tile of contexts at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """p_kNNLM of n contexts, kept as what it is made of: an LM and a few neighbors.

    p = (1 - lmbda) softmax(lm_hidden lm_head^T) + lmbda p_kNN. The LM need not be the one
    that p is projected on.

    Attributes:
        lm_hidden: (n, dim) float, the input of the LM's head.
        lm_head: (n_tokens, dim) float, the LM's output embeddings, in the dtype of lm_hidden.
        values: (n, width) int64, from `knn_distribution`.
        probabilities: (n, width) float64, from `knn_distribution`.
        lmbda: weight on p_kNN, in [0, 1): the paper's Eq. prints the weight on p_LM.
    """

    lm_hidden: Tensor
    lm_head: Tensor
    values: Tensor
    probabilities: Tensor
    lmbda: float

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit, and neighbors that are not merged."""
        if not 0 <= self.lmbda < 1:
            raise ValueError(
                f"lmbda must be in [0, 1), got {self.lmbda}; at 1 the tokens without a "
                "neighbor have no probability and the KL is infinite"
            )
        n, dim = self.lm_hidden.shape
        if self.lm_head.shape[1] != dim:
            raise ValueError(
                f"expected an lm_head of width {dim}, as lm_hidden, got {self.lm_head.shape[1]}"
            )
        if self.values.shape != self.probabilities.shape or len(self.values) != n:
            raise ValueError(
                f"expected values and probabilities ({n}, width), got "
                f"{tuple(self.values.shape)} and {tuple(self.probabilities.shape)}"
            )
        # A place with probability 0 may repeat a token: give each a number of its own.
        places = torch.arange(self.values.shape[1], device=self.values.device)
        own = torch.where(self.probabilities > 0, self.values, -1 - places).sort(dim=1).values
        if (own.diff(dim=1) == 0).any():
            raise ValueError("expected each value once per query; use knn_distribution")

    def __len__(self) -> int:
        """Return the number of contexts."""
        return len(self.lm_hidden)

    def log_probs(self, rows: slice) -> Tensor:
        """Return log p of some contexts over all tokens: (rows, n_tokens) float64, in nats."""
        logits = self.lm_hidden[rows] @ self.lm_head.T
        log_p = logits.double().log_softmax(dim=1).add_(math.log1p(-self.lmbda))
        values = self.values[rows]
        of_lm = log_p.gather(1, values)
        of_both = torch.logaddexp(of_lm, (self.lmbda * self.probabilities[rows]).log())
        # Added, not written: an unused place repeats token 0 and adds nothing to it.
        return log_p.scatter_add_(1, values, of_both - of_lm)


def tiles(n: int, *, tile: int) -> Iterator[slice]:
    """Cut n queries into slices of at most `tile`."""
    if tile < 1:
        raise ValueError(f"tile must be at least 1 query, got {tile}")
    return (slice(first, min(first + tile, n)) for first in range(0, n, tile))
