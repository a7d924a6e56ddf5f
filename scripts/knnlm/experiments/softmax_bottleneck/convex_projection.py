"""The certified optimum of the projection onto a linear head.

With f(z) = softmax(W z) the problem min over z of KL[p || f(z)] is

    min over z of  log sum_v exp(w_v . z) - m . z,    m = E_p[w_v],

plus the negative entropy of p: convex, and p enters through m alone (the dual of maximum
entropy under E_q[w] = m). The gradient is E_q[w] - m, so its norm certifies a solution. All
queries are solved together by L-BFGS, and those that are done leave the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from knnlm.experiments.softmax_bottleneck.lbfgs import Descent
from knnlm.experiments.softmax_bottleneck.mixture import Mixture, tiles

NOISE = 2
"""Rounding of a function value in units of its last place: below it a decrease is unreadable."""

NULL = 1e-12
"""Share of the largest variance below which a direction of the head is none at all."""

Observer = Callable[[Tensor], None]
"""Sees KL[p || f(z)], (n,) float64, after each evaluation: how a benchmark takes its times."""


@dataclass(frozen=True)
class Optimum:
    """The nearest distribution of a linear head to each p.

    Attributes:
        z: (n, dim) float64.
        kl: (n,) float64, KL[p || f(z)] in nats.
        certificate: (n,) float64, the relative gradient norm ||E_q[w] - m|| / ||m - w_mean||
            with w_mean the mean row of W: the part of the way from the mean under the uniform
            distribution to that under p which is still missing. It is 0 only at the optimum.
            The larger of two is taken: with the Euclidean norm, and with the norm that counts
            each direction in units of its standard deviation (`Whitened`); alone, the former
            would pass over directions in which the head is small.
        n_evaluations: how often the function and its gradient were computed.
    """

    z: Tensor
    kl: Tensor
    certificate: Tensor
    n_evaluations: int


def truncated_head(head: Tensor, *, rank: int) -> Tensor:
    """Return the head (n_tokens, rank) whose logits are those of the SVD-truncated head.

    W_r = U_r S_r V_r^T, so W_r z = (U_r S_r) (V_r^T z): the same distributions from rank
    coordinates. Float64.
    """
    if not 1 <= rank <= head.shape[1]:
        raise ValueError(f"rank must be in 1 to {head.shape[1]}, the head's width, got {rank}")
    wide = head.double()
    _, directions = torch.linalg.eigh(wide.T @ wide)  # ascending
    return wide @ directions[:, -rank:].flip(1)


@dataclass(frozen=True)
class Moments:
    """All that the solver needs to know of p.

    Attributes:
        mean: (n, dim) float64, m = E_p[w_v] of each query.
        negative_entropy: (n,) float64, the sum of p log p.
        average: (n_tokens,) float64, the mean of p over the queries.
    """

    mean: Tensor
    negative_entropy: Tensor
    average: Tensor


def moments(mixture: Mixture, head: Tensor, *, tile: int) -> Moments:
    """Return the moments of p under the rows of a head, in one pass over p.

    The head need not be that of the LM in the mixture: m = (1 - lmbda) E_LM[w] + lmbda
    E_kNN[w] is taken of the new rows under the old distributions.

    Args:
        mixture: p of n contexts.
        head: (n_tokens, dim), float64.
        tile: queries at a time; no array is larger than (tile, n_tokens).
    """
    if len(head) != len(mixture.lm_head):
        raise ValueError(
            f"expected a head of {len(mixture.lm_head)} tokens, as the LM's, got {len(head)}"
        )
    means, entropies = [], []
    average = head.new_zeros(len(head))
    for rows in tiles(len(mixture), tile=tile):
        log_p = mixture.log_probs(rows)
        p = log_p.exp()
        entropies.append(log_p.mul_(p).sum(dim=1))
        means.append(p @ head)
        average += p.sum(dim=0)
    return Moments(torch.cat(means), torch.cat(entropies), average / len(mixture))


def value_and_gradient(
    head: Tensor, mean: Tensor, z: Tensor, *, tile: int
) -> tuple[Tensor, Tensor]:
    """Return log sum exp(W z) - m . z and its gradient E_q[w] - m, for each query.

    Args:
        head: (n_tokens, dim); its dtype is that of the products and exponentials.
        mean: (n, dim) float64.
        z: (n, dim) float64.
        tile: queries at a time; no array is larger than (tile, n_tokens).

    Returns:
        (n,) and (n, dim), float64.
    """
    values, gradients = torch.empty_like(z[:, 0]), torch.empty_like(z)
    for rows in tiles(len(z), tile=tile):
        logits = z[rows].to(head.dtype) @ head.T
        top = logits.max(dim=1, keepdim=True).values
        weights = logits.sub_(top).exp_()
        total = weights.sum(dim=1, keepdim=True, dtype=torch.float64)
        values[rows] = (total.log() + top).squeeze(1)
        gradients[rows] = (weights @ head).double() / total
    return values - (mean * z).sum(dim=1), gradients - mean


@dataclass(frozen=True)
class Whitened:
    """The problem in coordinates in which the rows of the head have mean 0 and covariance 1.

    The Hessian is the covariance of the rows under q, so its average over the queries is near
    the identity there, which spares L-BFGS most of its steps. A point z is z @ color there;
    a point u there is u @ whiten.T here.

    Attributes:
        rows: (n_tokens, rank) float64, the centered rows @ whiten; rank is theirs.
        mean: (n, rank) float64, m less the center, @ whiten.
        whiten, color: (dim, rank) float64.
        way, whitened_way: (n,) float64, ||m - w_mean|| in the coordinates of the head and in
            these: the certificate is a share of them.
    """

    rows: Tensor
    mean: Tensor
    whiten: Tensor
    color: Tensor
    way: Tensor
    whitened_way: Tensor

    @classmethod
    def of(cls, head: Tensor, known: Moments) -> "Whitened":
        """Whiten a float64 head by the average p, of which there are the moments."""
        # Half uniform: a direction in which only improbable tokens differ is a direction too.
        weights = (known.average + 1 / len(head)) / 2
        center = weights @ head
        centered = head - center
        variances, axes = torch.linalg.eigh(centered.T @ (centered * weights[:, None]))
        present = variances > NULL * variances.max()
        scales = variances[present].sqrt()
        whiten, color = axes[:, present] / scales, axes[:, present] * scales
        way = known.mean - head.mean(dim=0)
        return cls(
            rows=centered @ whiten,
            mean=(known.mean - center) @ whiten,
            whiten=whiten,
            color=color,
            way=way.norm(dim=1),
            whitened_way=(way @ whiten).norm(dim=1),
        )

    def certificate(self, gradient: Tensor, queries: Tensor) -> Tensor:
        """Return the relative norm of a gradient in these coordinates: see `Optimum`."""
        here = gradient.norm(dim=1) / self.whitened_way[queries]
        return torch.maximum(here, (gradient @ self.color.T).norm(dim=1) / self.way[queries])


def descend(
    problem: Whitened,
    descent: Descent,
    *,
    dtype: torch.dtype,
    tolerance: float,
    max_evaluations: int,
    tile: int,
    observe: Observer,
) -> int:
    """Move every query down until it is done, and return the number of evaluations.

    In float64 a query is done when its certificate is at most the tolerance; in float32 also
    when a step changed its value by less than float32 can tell. At least one evaluation is
    made: the state may come from the other precision.
    """
    rows = problem.rows.to(dtype)

    def evaluate(queries: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return value_and_gradient(rows, problem.mean[queries], z, tile=tile)

    active = torch.arange(len(descent.z), device=descent.z.device)
    descent.value, descent.gradient = evaluate(active, descent.z)
    observe(descent.value)
    n_evaluations = 1
    while True:
        certificate = problem.certificate(descent.gradient[active], active)
        active = active[certificate > tolerance]
        if not len(active) or n_evaluations >= max_evaluations:
            return n_evaluations
        # The value is a small difference of two sums, and these are what is rounded.
        sums = (problem.mean[active] * descent.z[active]).sum(dim=1).abs()
        noise = NOISE * torch.finfo(dtype).eps * (1 + sums)
        level = descent.advance(active, evaluate, noise=noise)
        observe(descent.value)
        n_evaluations += 1
        if dtype != torch.float64:
            active = active[~level]


def optimum(
    head: Tensor,
    mixture: Mixture,
    start: Tensor,
    *,
    tolerance: float,
    max_evaluations: int,
    tile: int,
    observe: Observer = lambda kl: None,
) -> Optimum:
    """Return the z that minimize KL[p || softmax(W z)], each with its certificate.

    The descent begins in float32 and ends in float64, where the certificate is taken. The one
    Hessian that is formed is (dim, dim) and shared by all queries.

    Args:
        head: W, (n_tokens, dim): the LM's own, one of `truncated_head`, or another model's
            of the same vocabulary. It is held in float64, and once more whitened.
        mixture: p of n contexts.
        start: (n, dim): the LM's hidden states, or zeros for a foreign head.
        tolerance: the certificate at which a query is done: see `Optimum`.
        max_evaluations: most evaluations; a query that is not done by then keeps its larger
            certificate.
        tile: queries at a time; no array is larger than (tile, n_tokens), a head, or the
            memory of L-BFGS, 2 N_PAIRS (n, dim).
        observe: see `Observer`.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    if start.shape != (len(mixture), head.shape[1]):
        raise ValueError(
            f"expected start ({len(mixture)}, {head.shape[1]}), got {tuple(start.shape)}"
        )
    wide = head.double()
    known = moments(mixture, wide, tile=tile)
    problem = Whitened.of(wide, known)
    descent = Descent(start.double() @ problem.color)
    n_evaluations = 0
    for dtype in (torch.float32, torch.float64):
        n_evaluations += descend(
            problem,
            descent,
            dtype=dtype,
            tolerance=tolerance,
            max_evaluations=max_evaluations - n_evaluations,
            tile=tile,
            observe=lambda value: observe(value + known.negative_entropy),
        )
    everyone = torch.arange(len(descent.z), device=descent.z.device)
    return Optimum(
        z=descent.z @ problem.whiten.T,
        kl=descent.value + known.negative_entropy,
        certificate=problem.certificate(descent.gradient, everyone),
        n_evaluations=n_evaluations,
    )
