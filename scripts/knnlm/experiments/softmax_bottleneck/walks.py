"""Projection by the paper's optimizer: every map, target, start, direction and learning rate.

Chiang et al. (2024), Appendix A (Adam, lr 0.1, until an update changes the KL by less than 0.001)
and Table 4 (lr 0.001, 100 steps). Where no optimum is certified, long walks beside them: the best
of all bounds from above what can be reached, no more.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.experiments.softmax_bottleneck.problem import (
    FROM_KEY,
    FROM_LM,
    NORM_AND_F,
    TARGETS,
    TUNED,
    F,
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
from knnlm.experiments.softmax_bottleneck.stops import Stop
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import read_manifest
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, each_missing, making

PROJECTIONS = "projections"
DIRECTIONS: dict[Direction, str] = {"f||p": "f_p", "p||f": "p_f"}  # and in names of files
START = "start_"  # before the names of what holds where a walk starts
LONG = Stop("end", "mean", None)  # of a walk that takes all its updates


class Walk(NamedTuple):
    """One projection of all sampled contexts by Adam.

    Attributes:
        target: whose distributions are projected: tuned, published, or
            published_tuned_temperature.
        start: from_lm or from_key.
        direction: of the KL that is minimized.
        optimizer: the name of its settings.
        lr: learning rate.
        max_steps: most updates.
        stops: the rules that are watched.
    """

    target: str
    start: str
    direction: Direction
    optimizer: str
    lr: float
    max_steps: int
    stops: tuple[Stop, ...]

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.target}.{self.start}.{DIRECTIONS[self.direction]}.{self.optimizer}.npz"


def at(stop: Stop) -> str:
    """Return what stands before the names of what holds where a rule ended a walk."""
    return f"at_{stop.name}_"


def walks_of(last_layers: str, settings: Mapping[str, Any]) -> Iterator[Walk]:
    """Yield the walks of one map, those of one target together.

    The map that is ours is walked for the tuned kNN-LM alone, and from the LM.

    Args:
        last_layers: f, norm_and_f or f_g.
        settings: the block `softmax_bottleneck` of the config.
    """
    starts = (FROM_LM, FROM_KEY) if last_layers == F else (FROM_LM,)
    for target in (TUNED,) if last_layers == NORM_AND_F else TARGETS:
        for start, direction, optimizer in product(starts, DIRECTIONS, settings["optimizers"]):
            adam = settings["optimizers"][optimizer]
            if target in adam["targets"]:
                stops = tuple(Stop(name, **stop) for name, stop in adam["stops"].items())
                lr, max_steps = adam["lr"], adam["max_steps"]
                yield Walk(target, start, direction, optimizer, lr, max_steps, stops)
        if target == TUNED:
            yield from _long_walks(last_layers, **settings["long"])


def _long_walks(last_layers: str, *, lrs: list[float], steps: int) -> Iterator[Walk]:
    """Yield the long walks of a map, in each direction without a certified optimum."""
    for direction, lr in product(DIRECTIONS, lrs):
        if (last_layers, direction) != (F, "p||f"):  # convex, see `optima`
            yield Walk(TUNED, FROM_LM, direction, f"long_lr_{lr:g}", lr, steps, (LONG,))


def project_distributions(
    target: Target,
    *,
    inputs: ProjectionInputs,
    points: Mapping[str, Point],
    settings: Mapping[str, Any],
) -> None:
    """Project the kNN-LMs' distributions onto one map, by every walk.

    A walk is a unit: a killed run goes on with the next one.

    Args:
        target: whose `last_layers` is f, norm_and_f or f_g. For each walk nll of the targets and
            both KLs, (n,) float64, where it starts and where each rule ended it, there also the
            updates and whether the rule did; the trace of the mean KL that was minimized; and
            `places` (n,) of the sampled queries.
        inputs: the LM, its queries and their neighbors.
        points: k, temperature and lmbda of each kNN-LM, from `points_of`.
        settings: the block `softmax_bottleneck` of the config.

    Raises:
        ArtifactError: if the folders do not belong together.
    """
    last_layers = target.names["last_layers"]
    walks = [*walks_of(last_layers, settings)]
    described = {name: point._asdict() for name, point in points.items()}
    with making(
        target,
        kind=PROJECTIONS,
        made_from=inputs.origins(),
        settings={**settings, "last_layers": last_layers, "points": described},
        apart={"points": str(described)},
    ) as made:
        made.contents |= {"walks": [walk._asdict() for walk in walks]}
        problem_of = lru_cache(maxsize=1)(  # walks of one target follow each other
            lambda name: load_problem(inputs, points[name], positions=settings["positions"])
        )
        files = {walk: made.folder / walk.file for walk in walks}
        for walk in each_missing(files, label="projection", name="walks"):
            _take(walk, problem_of(walk.target), last_layers, made.folder, tile=settings["tile"])


def read_walks(folder: Path, places: NDArray[np.int64]) -> dict[Walk, Arrays]:
    """Return what every walk of an artifact reached.

    Args:
        folder: from `project_distributions`.
        places: (n,), the queries that it must be of.

    Raises:
        ArtifactError: if it is of others, or not whole.
    """
    described = read_manifest(folder, kind=PROJECTIONS)["contents"]["walks"]
    walks = [
        Walk(**{**walk, "stops": tuple(Stop(*stop) for stop in walk["stops"])})
        for walk in described
    ]
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
        stops=walk.stops,
        max_steps=walk.max_steps,
        tile=tile,
    )
    arrays: Arrays = {"kl_trace": np.array(found.kl_trace)}
    reached = {START: start}
    for stop in walk.stops:
        end, prefix = found.ends[stop.name], at(stop)
        reached[prefix] = end.z
        arrays[f"{prefix}updates"] = end.updates.cpu().numpy()
        arrays[f"{prefix}stopped"] = end.stopped.cpu().numpy()
    for prefix, z in reached.items():
        scores = score(f, z, problem.mixture, problem.targets, tile=tile)
        arrays |= arrays_of(scores, prefix=prefix)
    save_scores(folder / walk.file, problem.places, arrays)
    LOGGER.info(
        "%s %s: mean KL %.4f -> %.4f in %d steps",
        last_layers,
        walk.file.removesuffix(".npz"),
        found.kl_trace[0],
        found.kl_trace[-1],
        len(found.kl_trace) - 1,
    )
