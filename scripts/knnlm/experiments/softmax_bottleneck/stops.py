"""When a walk by the paper's optimizer ends: readings of one sentence, watched side by side.

Chiang et al. (2024), Appendix A: "until the update changes the KL-divergence by less than 0.001".
It does not say whose KL. Nor can it mean any small change: Adam at a large rate overshoots, and
where the KL turns it changes by little. So a walk ends at an update that lowers the KL, to the
lowest so far, by less than the tolerance. A rise ends nothing, nor does a fall from one.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Whose = Literal["mean", "each"]
"""Whose KL decides: the mean of all queries, which end together, or the own KL of each."""


class Stop(NamedTuple):
    """A rule that ends a walk.

    Attributes:
        name: in tables.
        whose: the KL that is looked at.
        tolerance: a fall by less ends the walk, in nats; None lets it take all its updates.
    """

    name: str
    whose: Whose
    tolerance: float | None


class Watch:
    """One rule along one walk: where it ended each query, or would have ended it.

    Attributes:
        z: (n, dim), where each query is, or was when the rule ended it.
        updates: (n,) int64, how many it had taken.
        stopped: (n,) bool, whether the rule has ended it.
    """

    def __init__(self, stop: Stop, start: Tensor) -> None:
        """Watch a walk that begins at `start`, (n, dim)."""
        n, device = len(start), start.device
        self._stop = stop
        self._last = self._lowest = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
        self.z = start.clone()
        self.updates = torch.zeros(n, dtype=torch.int64, device=device)
        self.stopped = torch.zeros(n, dtype=torch.bool, device=device)

    @property
    def over(self) -> bool:
        """Whether the rule has ended every query."""
        return bool(self.stopped.all())

    def see(self, z: Tensor, kl: Tensor, *, updates: int) -> None:
        """Look at the walk after some updates, none of them left out.

        Args:
            z: (n, dim), where it is.
            kl: (n,) float64, the KL of each query there, in nats.
            updates: how many it has taken.
        """
        going = ~self.stopped
        self.z[going] = z[going]
        self.updates[going] = updates
        seen = kl.mean().expand_as(kl) if self._stop.whose == "mean" else kl
        if self._stop.tolerance is not None:
            small = self._last - seen < self._stop.tolerance  # at the start it is infinite
            self.stopped |= small & (seen <= self._lowest)
        self._last, self._lowest = seen, torch.minimum(self._lowest, seen)
