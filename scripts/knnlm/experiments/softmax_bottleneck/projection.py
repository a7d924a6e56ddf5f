"""Projection of the kNN-LM onto the last layers of an LM: Chiang et al. (2023), Eq. 2.

For one context the question is which distribution f(z) that a differentiable map f can
produce is nearest to p = (1 - lmbda) p_LM + lmbda p_kNN. The map is whatever the caller
hands in: the bare head, the final norm before it, or the last MLP before both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from knnlm.experiments.softmax_bottleneck.mixture import Mixture, tiles
from knnlm.experiments.softmax_bottleneck.stops import Stop, Watch

Direction = Literal["p||f", "f||p"]
"""Which KL is minimized: "f||p" is Eq. 2 as printed, "p||f" is the cross-entropy."""

Map = Callable[[Tensor], Tensor]
"""From z (n, dim) to logits (n, n_tokens), differentiable, one row for each row of z."""


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


@dataclass(frozen=True)
class Walked:
    """What a walk by the paper's optimizer reached.

    Attributes:
        kl_trace: the mean over the queries of the minimized KL, before each update and after
            the last, in nats.
        ends: by the name of each rule where it ended the queries; z in the dtype of the start.
    """

    kl_trace: list[float]
    ends: dict[str, Watch]


def project(
    f: Map,
    start: Tensor,
    mixture: Mixture,
    *,
    direction: Direction,
    lr: float,
    stops: Sequence[Stop],
    max_steps: int,
    tile: int,
) -> Walked:
    """Minimize the KL over z by Adam, as in Appendix A of Chiang et al. (2023).

    The gradient is that of the sum of the KLs. Adam works coordinate by coordinate, so the path
    of a query does not depend on the others or on their number, and where a query ends does so
    only if a rule looks at the mean. One walk therefore serves every rule. It goes on until each
    of them has ended every query; tiles advance together, update by update.

    A sample of one tile keeps its p; of several, p is put together again at each step.

    Args:
        f: the map; only z is updated.
        start: (n, dim) float, the z to start at; its dtype is that of the updates.
        mixture: p, of the same n contexts.
        direction: "f||p" as printed, or "p||f".
        lr: learning rate of Adam, whose other settings stay at their defaults.
        stops: the rules.
        max_steps: most updates; what no rule has ended by then ends there.
        tile: queries at a time; no array is larger than (tile, n_tokens).
    """
    z = start.detach().clone()
    z.grad = torch.zeros_like(z)
    optimizer = torch.optim.Adam([z], lr=lr)
    cuts = list(tiles(len(z), tile=tile))
    kept = mixture.log_probs(cuts[0]).to(z.dtype) if len(cuts) == 1 else None
    ends = {stop.name: Watch(stop, z) for stop in stops}
    trace: list[float] = []
    for step in range(max_steps + 1):
        parts = []
        for rows in cuts:
            log_p = mixture.log_probs(rows).to(z.dtype) if kept is None else kept
            part = z[rows].detach().requires_grad_()
            logits = f(part)
            kl, by_logits = kl_and_gradient(logits.detach(), log_p, direction=direction)
            (z.grad[rows],) = torch.autograd.grad(logits, part, by_logits)
            parts.append(kl)
        kl = torch.cat(parts)
        trace.append(float(kl.mean()))
        for watch in ends.values():
            watch.see(z, kl, updates=step)
        if step == max_steps or all(watch.over for watch in ends.values()):
            break
        optimizer.step()
    return Walked(trace, ends)
