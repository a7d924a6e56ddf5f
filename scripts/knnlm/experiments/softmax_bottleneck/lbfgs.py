"""L-BFGS for many small problems at once: each query takes its own steps.

Nocedal and Wright (2006), Algorithm 7.4, with a backtracking line search that costs one
evaluation of the whole batch at a time: a query whose trial is good goes on from there, the
others try a shorter step in the next evaluation, and nobody waits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

N_PAIRS = 20
"""Steps remembered per query; 3 to 20 is usual (Nocedal and Wright, section 7.2)."""

SUFFICIENT_DECREASE = 1e-4
"""Share of the predicted decrease that a step must bring: Armijo, the usual constant."""

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From queries (n_rows,) int64 and z (n_rows, dim) to values (n_rows,) and gradients."""


class Descent:
    """L-BFGS for a batch of queries, each on its own path with its own memory.

    Attributes:
        z: (n, dim) float64, where each query stands.
        value: (n,) float64, the function there.
        gradient: (n, dim) float64.
    """

    def __init__(self, z: Tensor) -> None:
        self.z = z
        self.value = torch.empty_like(z[:, 0])
        self.gradient = torch.empty_like(z)
        self._step = torch.ones_like(self.value)  # of the next trial, along the direction
        self._scale = torch.ones_like(self.value)  # inverse curvature before any memory
        self._n_taken = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        # Rings of the last N_PAIRS steps: changes of z and of the gradient, 1 / their product.
        self._moves = z.new_zeros(N_PAIRS, *z.shape)
        self._turns = z.new_zeros(N_PAIRS, *z.shape)
        self._weights = z.new_zeros(N_PAIRS, len(z))

    def direction(self, rows: Tensor) -> Tensor:
        """Return minus the inverse Hessian times the gradient: the two-loop recursion."""
        direction = -self.gradient[rows]
        taken = self._n_taken[rows]
        pairs = []
        for age in range(1, min(N_PAIRS, int(taken.max())) + 1):
            slot = (taken - age) % N_PAIRS
            move, turn = self._moves[slot, rows], self._turns[slot, rows]
            weight = self._weights[slot, rows][:, None]  # 0 where nothing is remembered yet
            share = weight * (move * direction).sum(dim=1, keepdim=True)
            direction -= share * turn
            pairs.append((move, turn, weight, share))
        direction *= self._scale[rows, None]
        for move, turn, weight, share in reversed(pairs):
            back = weight * (turn * direction).sum(dim=1, keepdim=True)
            direction += (share - back) * move
        return direction

    def advance(self, rows: Tensor, evaluate: Evaluate, *, noise: Tensor) -> Tensor:
        """Try one step of each given query; take it if it descends, else shorten the next.

        Args:
            rows: (n_rows,) int64, the queries.
            evaluate: from rows and their z to their values and gradients.
            noise: (n_rows,) float64, the rounding of their values.

        Returns:
            (n_rows,) bool: the value moved by no more than its rounding.
        """
        direction = self.direction(rows)
        slope = (self.gradient[rows] * direction).sum(dim=1)
        step = self._step[rows]
        move = step[:, None] * direction
        value, gradient = evaluate(rows, self.z[rows] + move)
        drop = value - self.value[rows]
        level = drop.abs() <= noise
        # Where the decrease drowns in rounding, the slopes still tell it: the approximate
        # Wolfe condition of Hager and Zhang (2005), Eq. 4.1.
        gentle = (gradient * direction).sum(dim=1) <= (2 * SUFFICIENT_DECREASE - 1) * slope
        good = (drop <= SUFFICIENT_DECREASE * step * slope) | (level & gentle)
        vertex = -slope * step.square() / (2 * (drop - slope * step))  # of the parabola
        shorter = torch.maximum(torch.minimum(vertex, 0.5 * step), 0.1 * step)
        self._step[rows] = torch.where(good, 1.0, shorter)
        self._take(rows[good], move[good], value[good], gradient[good])
        return level

    def _take(self, rows: Tensor, move: Tensor, value: Tensor, gradient: Tensor) -> None:
        turn = gradient - self.gradient[rows]
        self.z[rows] += move
        self.value[rows] = value
        self.gradient[rows] = gradient
        product = (move * turn).sum(dim=1)
        curved = product > 0  # always so in exact arithmetic, as the function is convex
        rows, move, turn, product = rows[curved], move[curved], turn[curved], product[curved]
        slot = self._n_taken[rows] % N_PAIRS
        self._moves[slot, rows] = move
        self._turns[slot, rows] = turn
        self._weights[slot, rows] = 1 / product
        self._scale[rows] = product / turn.square().sum(dim=1)
        self._n_taken[rows] += 1
