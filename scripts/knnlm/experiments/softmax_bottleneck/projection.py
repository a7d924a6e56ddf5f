"""Projection of the kNN-LM onto the last layers of an LM: Chiang et al. (2023), Eq. 2.

For one context the question is which distribution f(z) that a differentiable map f can
produce is nearest to p = (1 - lmbda) p_LM + lmbda p_kNN. The map is whatever the caller
hands in: the bare head, the final norm and the head, or the last MLP before both. p is never
stored over the vocabulary; it is put together again for one tile of queries at a time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Direction = Literal["p||f", "f||p"]
"""Which KL is minimized: "f||p" is Eq. 2 as printed, "p||f" is the cross-entropy."""

Map = Callable[[Tensor], Tensor]
"""From z (n, dim) to logits (n, n_tokens), differentiable, one row for each row of z."""


def merge_neighbors(
    distances: Tensor, neighbor_values: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return p_kNN as its distinct values and their probabilities.

    A softmax over the negative distances, summed over the neighbors that share a value:
    Khandelwal et al. (2020), Eq. 2, with the temperature of Xu et al. (2023).

    Args:
        distances: (n, k) float, squared L2; +inf where a neighbor is missing.
        neighbor_values: (n, k) integer, the token after each neighbor; whatever stands
            beside an infinite distance never counts, nor does a value below 0.
        temperature: above 0, in units of squared distance.

    Returns:
        values (n, width) int64, no token twice in a row among those with a probability above
        0, and probabilities (n, width) float64, each row summing to 1. The width is the
        largest number of distinct values of a query; unused places hold token 0 and 0.

    Raises:
        ValueError: if a shape or the temperature is not as above, a distance is not a number,
            or a query has no neighbor at all.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if distances.ndim != 2 or distances.shape != neighbor_values.shape:
        raise ValueError(
            "expected distances (n, k) and neighbor_values (n, k), got "
            f"{tuple(distances.shape)} and {tuple(neighbor_values.shape)}"
        )
    if distances.isnan().any():
        raise ValueError("expected distances that are numbers, got nan; search again")
    scores = -distances.double() / temperature
    scores = scores.masked_fill(neighbor_values < 0, -math.inf)
    found = scores.isfinite()
    if not found.any(dim=1).all():
        lonely = int((~found.any(dim=1)).sum())
        raise ValueError(
            f"expected at least one neighbor for each query, got none for {lonely} of "
            f"{len(found)}; search more lists, or leave those queries out"
        )
    nearest = neighbor_values.gather(1, scores.argmax(dim=1, keepdim=True))
    known = torch.where(found, neighbor_values, nearest).long()  # adds a weight of 0 to it
    ordered, order = known.sort(dim=1, stable=True)
    weights = scores.softmax(dim=1).gather(1, order)
    opens = ordered.diff(dim=1, prepend=ordered.new_full((len(ordered), 1), -1)) != 0
    place = opens.cumsum(dim=1) - 1
    width = int(place.max()) + 1
    values = ordered.new_zeros(len(ordered), width).scatter_(1, place, ordered)
    probabilities = weights.new_zeros(len(ordered), width).scatter_add_(1, place, weights)
    return values, probabilities


@dataclass(frozen=True)
class Mixture:
    """p_kNNLM of n contexts, kept as what it is made of: an LM and a few neighbors.

    p = (1 - lmbda) softmax(lm_hidden lm_head^T) + lmbda p_kNN. The LM need not be the one
    that p is projected on.

    Attributes:
        lm_hidden: (n, dim) float, the input of the LM's head.
        lm_head: (n_tokens, dim) float, the LM's output embeddings, in the dtype of lm_hidden.
        values: (n, width) int64, from `merge_neighbors`.
        probabilities: (n, width) float64, from `merge_neighbors`.
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
            raise ValueError("expected each value once per query; use merge_neighbors")

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


def kl_and_gradient(
    logits: Tensor, log_p: Tensor, *, direction: Direction
) -> tuple[Tensor, Tensor]:
    """Return the KL of each query and its derivative by the logits.

    With q = softmax(logits) the derivative of KL[p || q] is q - p, and that of KL[q || p] is
    q (log q - log p - KL[q || p]).

    Args:
        logits: (n, n_tokens) float.
        log_p: (n, n_tokens), in the dtype of the logits.
        direction: which KL.

    Returns:
        (n,) float64 in nats, and (n, n_tokens) in the dtype of the logits.
    """
    log_q = logits.log_softmax(dim=1)
    q = log_q.exp()
    excess = log_q.sub_(log_p)
    if direction == "f||p":
        kl = (q * excess).sum(dim=1, dtype=torch.float64)
        return kl, excess.sub_(kl.to(q.dtype)[:, None]).mul_(q)
    if direction == "p||f":
        p = log_p.exp()
        kl = -(excess.mul_(p)).sum(dim=1, dtype=torch.float64)
        return kl, q.sub_(p)
    raise ValueError(f'direction must be "p||f" or "f||p", got "{direction}"')


@dataclass(frozen=True)
class Scores:
    """How near f(z) is to p, and how well it predicts: each (n,) float64, in nats."""

    kl_p_f: Tensor
    kl_f_p: Tensor
    nll: Tensor


@torch.no_grad()
def score(f: Map, z: Tensor, mixture: Mixture, targets: Tensor, *, tile: int) -> Scores:
    """Return KL[p || f(z)], KL[f(z) || p] and the nll of each target under f(z).

    Args:
        f: the map.
        z: (n, dim).
        mixture: p, of the same n contexts.
        targets: (n,) int64, the token that did follow; exp of the mean nll is the perplexity.
        tile: queries at a time; no array is larger than (tile, n_tokens).
    """
    parts = []
    for rows in tiles(len(mixture), tile=tile):
        log_p = mixture.log_probs(rows)
        log_q = f(z[rows]).double().log_softmax(dim=1)
        nll = -log_q.gather(1, targets[rows, None]).squeeze(1)
        excess = log_p - log_q
        kl_p_f = (log_p.exp_() * excess).sum(dim=1)
        kl_f_p = -(log_q.exp_() * excess).sum(dim=1)
        parts.append(torch.stack([kl_p_f, kl_f_p, nll]))
    return Scores(*torch.cat(parts, dim=1))


def mixture_nll(mixture: Mixture, targets: Tensor, *, tile: int) -> Tensor:
    """Return -log p of each target, (n,) float64 in nats: the kNN-LM, or at lmbda 0 the LM."""
    parts = [
        -mixture.log_probs(rows).gather(1, targets[rows, None]).squeeze(1)
        for rows in tiles(len(mixture), tile=tile)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class Projection:
    """What the paper's optimizer reached.

    Attributes:
        z: (n, dim), in the dtype of the start.
        kl_trace: the mean over the queries of the minimized KL, before each update and after
            the last, in nats.
    """

    z: Tensor
    kl_trace: list[float]

    @property
    def n_steps(self) -> int:
        """Return the number of updates."""
        return len(self.kl_trace) - 1


def project(
    f: Map,
    start: Tensor,
    mixture: Mixture,
    *,
    direction: Direction,
    lr: float,
    tolerance: float | None,
    max_steps: int,
    tile: int,
) -> Projection:
    """Minimize the KL over z by Adam, as in Appendix A of Chiang et al. (2023).

    The paper updates "until the update changes the KL-divergence by less than 0.001", with
    lr 0.1. It does not say whose KL: here it is the mean over all the queries given, so they
    stop together, and tiles advance together, step by step. The gradient is that of the sum;
    Adam works coordinate by coordinate, so the path of a query does not depend on the others
    or on their number, only the moment of the stop does.

    A sample of one tile keeps its p; of several, p is put together again at each step.

    Args:
        f: the map; only z is updated.
        start: (n, dim) float, the z to start at; its dtype is that of the updates.
        mixture: p, of the same n contexts.
        direction: "f||p" as printed, or "p||f".
        lr: learning rate of Adam, whose other settings stay at their defaults.
        tolerance: stop when an update changes the mean KL by less, in nats; None to take
            all of max_steps.
        max_steps: most updates.
        tile: queries at a time; no array is larger than (tile, n_tokens).
    """
    z = start.detach().clone()
    z.grad = torch.zeros_like(z)
    optimizer = torch.optim.Adam([z], lr=lr)
    cuts = list(tiles(len(z), tile=tile))
    kept = mixture.log_probs(cuts[0]).to(z.dtype) if len(cuts) == 1 else None
    trace: list[float] = []
    for step in range(max_steps + 1):
        total = 0.0
        for rows in cuts:
            log_p = mixture.log_probs(rows).to(z.dtype) if kept is None else kept
            part = z[rows].detach().requires_grad_()
            logits = f(part)
            kl, by_logits = kl_and_gradient(logits.detach(), log_p, direction=direction)
            (z.grad[rows],) = torch.autograd.grad(logits, part, by_logits)
            total += float(kl.sum())
        trace.append(total / len(z))
        settled = tolerance is not None and step > 0 and abs(trace[-1] - trace[-2]) < tolerance
        if settled or step == max_steps:
            break
        optimizer.step()
    return Projection(z=z, kl_trace=trace)
