"""How long it takes to certify every output vector of a head, on one core.

    PYTHONPATH=scripts python benchmarks/convex_hull.py

prints one table in a minute or two; the goal is 60 s for 4,096 vectors of width 128, whatever they
are: Gaussian ones with a falling spectrum and Zipfian frequencies; the same with some that are
convex combinations of others, which a program has to show; and a hundred moved towards the mean,
some so far that they are inside. Beside them stand linear programs over all rivals, one vector
after the other and without a cheap certificate, as they would be solved otherwise: their time is
that of a few, times the number of vectors. Times are CPU time, as other work may share the cores.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linprog

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.experiments.ruled_out.convex_hull import (
    How,
    Points,
    settle_by_directions,
    settle_by_program,
)

N_VECTORS, WIDTH = 4096, 128
INTERIOR, SHRUNK = 20, 100
FACTORS = (0.1, 0.6)  # of the distance to the mean
OF_EACH = 20  # vectors that an interior one combines
RANDOM, STEPS = 1024, 3000  # as at the scale `cpu`
PROGRAMS = 3  # that are timed over all rivals
GOAL = 60.0  # seconds


def heads() -> dict[str, torch.Tensor]:
    """Return output vectors of three kinds."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, WIDTH + 1) ** -0.35
    plain = torch.randn(N_VECTORS, WIDTH, generator=generator) * spectrum
    plain[:, 0] = -3 * torch.arange(1, N_VECTORS + 1).log() / math.log(N_VECTORS)
    interior, shrunk = plain.clone(), plain.clone()
    for place in range(N_VECTORS - INTERIOR, N_VECTORS):
        chosen = torch.randperm(N_VECTORS - INTERIOR, generator=generator)[:OF_EACH]
        weights = torch.rand(OF_EACH, generator=generator)
        interior[place] = weights / weights.sum() @ plain[chosen]
    factors = torch.linspace(*FACTORS, SHRUNK)[:, None]
    shrunk[-SHRUNK:] = plain.mean(dim=0).lerp(plain[-SHRUNK:], factors)
    return {"plain": plain, f"{INTERIOR} interior": interior, f"{SHRUNK} towards the mean": shrunk}


def certify(head: torch.Tensor) -> np.ndarray:
    """Return how every vector is certified."""
    points = Points.of(head)
    how, direction = settle_by_directions(points, random=RANDOM, steps=STEPS, seed=0)
    for place in np.flatnonzero(how == How.UNDECIDED):
        how[place] = settle_by_program(points, int(place), direction[place])
    return how


def seconds_of_programs(head: torch.Tensor) -> float:
    """Return the time of a program over all rivals for every vector, from that of a few."""
    vectors, begin = head.double().numpy(), time.process_time()
    for place in range(PROGRAMS):
        rivals = np.delete(vectors, place, axis=0)
        linprog(
            c=np.append(np.zeros(WIDTH), -1.0),
            A_ub=np.hstack([rivals - vectors[place], np.ones((len(rivals), 1))]),
            b_ub=np.zeros(len(rivals)),
            bounds=[*[(-1.0, 1.0)] * WIDTH, (0.0, None)],
            method="highs",
        )
    return (time.process_time() - begin) / PROGRAMS * len(vectors)


def main() -> None:
    torch.set_num_threads(1)
    rows, spent = [], {}
    for name, head in heads().items():
        begin = time.process_time()
        how = certify(head)
        spent[name] = time.process_time() - begin
        inside, open_ones = ((how == kind).sum() for kind in (How.INSIDE, How.UNDECIDED))
        what = f"CPU s, {name}: {inside} found inside, {open_ones} undecided; bound {GOAL:g} s"
        rows.append(Row(what, spent[name], GOAL, "<= 1"))
    first, *_ = spent
    programs = seconds_of_programs(heads()[first])
    what = f"CPU s, {first}, against a program over all rivals for each vector"
    rows.append(Row(what, spent[first], programs, inverted=True))
    title = "Output vectors certified to be outside the convex hull of the others, or inside"
    print_table(title, rows, f"{N_VECTORS:,} vectors of width {WIDTH}, 1 thread.")


if __name__ == "__main__":
    main()
