"""Projection by the paper's optimizer: every map, start, direction and learning rate.

Chiang et al. (2024), Appendix A (Adam, lr 0.1, until an update changes the KL by less than 0.001)
and Table 4 (lr 0.001, 100 steps). Where the KL is not convex in z, long walks beside them: the
best of them bounds from above what can be reached, no more.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.experiments.softmax_bottleneck.problem import (
    FROM_KEY,
    FROM_LM,
    Problem,
    ProjectionInputs,
    load_problem,
)
from knnlm.experiments.softmax_bottleneck.projection import Direction, project, score
from knnlm.experiments.softmax_bottleneck.scores import (
    Arrays,
    arrays_of,
    read_scores,
    save_scores,
)
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import read_manifest
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, each_missing, making

PROJECTIONS = "projections"
DIRECTIONS: dict[Direction, str] = {"f||p": "f_p", "p||f": "p_f"}  # and in names of files
START = "start_"  # before the names of what holds where a walk starts


class Walk(NamedTuple):
    """One projection of all sampled contexts by Adam."""

    start: str
    direction: Direction
    optimizer: str
    lr: float
    tolerance: float | None
    max_steps: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.start}.{DIRECTIONS[self.direction]}.{self.optimizer}.npz"


def walks_of(last_layers: str, settings: Mapping[str, Any]) -> Iterator[Walk]:
    """Yield the walks of one map, the long ones last.

    Args:
        last_layers: head, f or f_g.
        settings: the block `softmax_bottleneck` of the config.
    """
    starts = (FROM_LM,) if last_layers == "f_g" else (FROM_LM, FROM_KEY)
    for start, direction, optimizer in product(starts, DIRECTIONS, settings["optimizers"]):
        yield Walk(start, direction, optimizer, **settings["optimizers"][optimizer])
    if last_layers != "head":  # whose least KL is certified, see softmax_bottleneck_optima
        steps = settings["long"]["steps"]
        for lr in settings["long"]["lrs"]:
            yield Walk(FROM_LM, "p||f", f"long_lr_{lr:g}", lr, None, steps)


def project_distributions(
    target: Target, *, inputs: ProjectionInputs, point: Point, settings: Mapping[str, Any]
) -> None:
    """Project the tuned kNN-LM's distributions onto one map, by every walk.

    A walk is a unit: a killed run goes on with the next one.

    Args:
        target: whose `last_layers` is head, f or f_g. For each walk nll of the targets and both
            KLs, (n,) float64 at the end and, with the prefix start_, at the start, and the trace
            of the mean KL that was minimized; `places` (n,) of the sampled queries.
        inputs: the LM, its queries and their neighbors.
        point: the tuned k, temperature and lmbda.
        settings: the block `softmax_bottleneck` of the config.

    Raises:
        ArtifactError: if the folders do not belong together.
    """
    last_layers = target.names["last_layers"]
    walks = [*walks_of(last_layers, settings)]
    with making(
        target,
        kind=PROJECTIONS,
        made_from=inputs.origins(),
        settings={**settings, "last_layers": last_layers, "point": point._asdict()},
        apart={"point": str(point)},
    ) as made:
        made.contents |= {"walks": [walk._asdict() for walk in walks]}
        problem = load_problem(inputs, point, positions=settings["positions"])
        files = {walk: made.folder / walk.file for walk in walks}
        for walk in each_missing(files, label="projection", name="walks"):
            _take(walk, problem, last_layers, made.folder, tile=settings["tile"])


def read_walks(folder: Path, places: NDArray[np.int64]) -> dict[Walk, Arrays]:
    """Return what every walk of an artifact reached.

    Args:
        folder: from `project_distributions`.
        places: (n,), the queries that it must be of.

    Raises:
        ArtifactError: if it is of others, or not whole.
    """
    walks = [Walk(**walk) for walk in read_manifest(folder, kind=PROJECTIONS)["contents"]["walks"]]
    return {walk: read_scores(folder / walk.file, places) for walk in walks}


def _take(walk: Walk, problem: Problem, last_layers: str, folder: Path, *, tile: int) -> None:
    """Take one walk and write what it reached."""
    f, start = problem.map_of(last_layers), problem.starts(last_layers)[walk.start]
    found = project(
        f,
        start,
        problem.mixture,
        direction=walk.direction,
        lr=walk.lr,
        tolerance=walk.tolerance,
        max_steps=walk.max_steps,
        tile=tile,
    )
    arrays: Arrays = {"kl_trace": np.array(found.kl_trace)}
    for prefix, z in {START: start, "": found.z}.items():
        scores = score(f, z, problem.mixture, problem.targets, tile=tile)
        arrays |= arrays_of(scores, prefix=prefix)
    save_scores(folder / walk.file, problem.places, arrays)
    LOGGER.info(
        "%s %s: mean KL %.4f -> %.4f in %d steps",
        last_layers,
        walk.file.removesuffix(".npz"),
        found.kl_trace[0],
        found.kl_trace[-1],
        found.n_steps,
    )
