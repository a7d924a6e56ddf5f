"""Which vectors lie in the convex hull of the others, certified for each.

A vector w_i is outside if and only if a direction has it as strict maximum: w_i u > w_j u for all
other j. A head whose output vector is inside can never give its token the highest logit, whatever
the hidden state: its probability is stolen (Demeter et al. 2020; Grivas et al. 2022). Whoever lies
on the border of the hull of the others, such as the middle of two of them or one of two equal
vectors, may tie but is never the strict maximum, and so counts as inside.

A direction proves that a vector is outside; a convex combination of others proves that it is
inside. Both proofs are checked in float64. Directions are tried from cheap to dear:

1. the vector itself minus the mean, and random ones, whose maximum is outside too;
2. steps of the perceptron: from a direction to one that prefers w_i to the rival that won;
3. a linear program (HiGHS) over the rivals that won so far, until one wins or none is left.

The question does not change under an affine map, so all of it is done in coordinates in which the
vectors have unit covariance: there the first direction is right for most. A bias of the head, and
a final norm that bounds the hidden states or shifts them, ask another question: with them a vector
that is outside may still never win.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

TILE = 1 << 24  # products at a time: 128 MiB in float64
STRICT = 1e-12  # by how much a maximum must win, relative to lengths: 10 times rounding at 1,024 d
FLAT = 1e-12  # variance, relative to the largest, below which vectors do not differ
RESIDUAL = 1e-6  # of a convex combination, relative to the longest vector
NO_MARGIN = 1e-6  # of a program, in which all differences have length 1
RIVALS = 64  # that join a program at a time


class How(IntEnum):
    """How a vector was certified."""

    UNDECIDED = 0
    DIRECTION = 1  # outside: by its own direction, or as the maximum of another
    STEPS = 2  # outside: by steps of the perceptron
    PROGRAM = 3  # outside: by a linear program
    INSIDE = 4  # by a convex combination of others


@dataclass(frozen=True)
class Points:
    """Vectors, and the same in coordinates in which they have unit covariance.

    Attributes:
        given: (n, d) float64.
        white: (n, rank) float64, centered.
        back: (d, rank), takes a direction of `white` to one of `given`.
    """

    given: Tensor
    white: Tensor
    back: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> "Points":
        """Return vectors (n, d) in both coordinates.

        Raises:
            ValueError: if there are fewer than two vectors, or one is not finite.
        """
        given = vectors.double()
        if len(given) < 2 or not given.isfinite().all():
            raise ValueError(
                f"expected at least two finite vectors, got {len(given)}; the model has diverged"
            )
        centered = given - given.mean(dim=0)
        variances, axes = torch.linalg.eigh(centered.T @ centered / len(given))
        kept = variances > FLAT * variances[-1].clamp(min=torch.finfo(torch.float64).tiny)
        back = axes[:, kept] / variances[kept].sqrt()
        return cls(given, centered @ back, back)

    def are_maxima(self, places: Tensor, directions: Tensor) -> Tensor:
        """Return whether vectors are the strict maxima of directions (m, rank): (m,) bool.

        Checked on the vectors as they were given, in float64.
        """
        found = torch.empty(len(places), dtype=torch.bool, device=self.given.device)
        turned = directions @ self.back.T
        least = STRICT * turned.norm(dim=1) * self.given.norm(dim=1).max()
        for rows in _tiles(len(places), len(self.given)):
            products = turned[rows] @ self.given.T
            own = products.gather(1, places[rows, None])[:, 0]
            products.scatter_(1, places[rows, None], -torch.inf)
            found[rows] = own - products.max(dim=1).values > least[rows]
        return found


def settle_by_directions(
    points: Points, *, random: int, steps: int, seed: int
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Certify the vectors that some direction shows to be outside, without any program.

    Args:
        points: the vectors.
        random: directions that are drawn.
        steps: most steps of the perceptron for a vector.
        seed: of the random directions.

    Returns:
        How each of the n vectors was certified, and the direction (n, rank) that was tried last.
    """
    white, n = points.white, len(points.white)
    how = torch.zeros(n, dtype=torch.int8, device=white.device)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(random, white.shape[1], generator=generator, dtype=torch.float64)
    last = white.clone()
    for directions in (drawn.to(white.device), last):
        winners, _ = _winners(white, directions)
        how[winners[points.are_maxima(winners, directions)]] = How.DIRECTION
    for _ in range(steps):
        left = torch.nonzero(how == How.UNDECIDED)[:, 0]
        if not len(left):
            break
        winners, rivals = _winners(white, last[left], but=left)
        won = winners == left
        sure = left[won][points.are_maxima(left[won], last[left[won]])]
        how[sure] = How.STEPS
        # One that wins by too little to be certified goes on as well.
        last[left] += white[left] - white[rivals]
    return how.cpu().numpy(), last.cpu().numpy()


def settle_by_program(points: Points, place: int, direction: NDArray[np.float64]) -> How:
    """Certify one vector by linear programs over its rivals.

    max t over directions u in a box, (w_i - w_j) u >= t |w_i - w_j| for every rival j so far. If u
    has w_i as strict maximum of all vectors it is outside; if t is 0, the multipliers of the
    program make a convex combination of rivals that is w_i; otherwise those that beat w_i join.

    Args:
        points: the vectors.
        place: of the one in question.
        direction: (rank,), where rivals are looked for first.
    """
    white = points.white.cpu().numpy()
    differences = white[place] - white
    lengths = np.linalg.norm(differences, axis=1)
    others = np.arange(len(white)) != place
    if (lengths[others] <= STRICT * np.linalg.norm(white, axis=1).max()).any():
        return How.INSIDE  # equal to another
    differences[others] /= lengths[others, None]
    rivals = np.zeros(len(white), dtype=bool)
    ahead_by = np.inf  # the nearest join the first program, later those that are not beaten
    while True:
        margins = np.where(others & ~rivals, differences @ direction, np.inf)
        new = np.argsort(margins, kind="stable")[:RIVALS]
        new = new[margins[new] < ahead_by]
        if not len(new):
            return How.UNDECIDED  # too near to tell
        ahead_by = np.nextafter(0.0, 1.0)
        rivals[new] = True
        direction, margin, multipliers = _program(differences[rivals])
        if _is_maximum(points, place, direction):
            return How.PROGRAM
        if margin <= NO_MARGIN and _is_combination(
            white, place, rivals, multipliers / lengths[rivals]
        ):
            return How.INSIDE


def _program(
    differences: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Return the direction of the largest margin in a box, the margin, and the multipliers."""
    n, rank = differences.shape
    solved = linprog(
        c=np.append(np.zeros(rank), -1.0),
        A_ub=np.hstack([-differences, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        bounds=[*[(-1.0, 1.0)] * rank, (0.0, None)],
        method="highs",
    )
    if solved.status != 0:
        raise RuntimeError(f"the program of a convex hull was not solved: {solved.message}")
    return solved.x[:-1], float(solved.x[-1]), -solved.ineqlin.marginals


def _is_maximum(points: Points, place: int, direction: NDArray[np.float64]) -> bool:
    device = points.white.device
    places = torch.tensor([place], device=device)
    return bool(points.are_maxima(places, torch.from_numpy(direction)[None].to(device)))


def _is_combination(
    white: NDArray[np.float64],
    place: int,
    rivals: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> bool:
    """Return whether weights, at least 0 and scaled to a sum of 1, combine rivals to a vector."""
    weights = np.maximum(weights, 0.0)
    if not weights.sum() > 0:
        return False
    combined = weights / weights.sum() @ white[rivals]
    longest = np.linalg.norm(white, axis=1).max()
    return bool(np.linalg.norm(combined - white[place]) <= RESIDUAL * longest)


def _winners(
    white: Tensor, directions: Tensor, *, but: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the maximum of each direction (m,), and the maximum but for one vector each."""
    winners = torch.empty(len(directions), dtype=torch.int64, device=white.device)
    rivals = winners.clone()
    for rows in _tiles(len(directions), len(white)):
        products = directions[rows] @ white.T
        winners[rows] = products.argmax(dim=1)
        products.scatter_(1, (winners[rows] if but is None else but[rows])[:, None], -torch.inf)
        rivals[rows] = products.argmax(dim=1)
    return winners, rivals


def _tiles(n: int, width: int) -> list[slice]:
    size = max(1, TILE // width)
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]
