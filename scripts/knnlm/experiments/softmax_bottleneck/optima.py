"""Rank or optimizer? The certified optimum of linear heads, the targets held fixed.

min over z of KL[p || softmax(W z)] is convex, so what a head cannot express is told from what an
optimizer did not reach. W is the LM's own head, the same cut by SVD to fewer ranks, and the heads
of other models of the same vocabulary. Every map ends in the LM's own head and so never comes
nearer to p than its optimum.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from knnlm.experiments.softmax_bottleneck.convex_projection import optimum, truncated_head
from knnlm.experiments.softmax_bottleneck.problem import (
    TARGETS,
    TUNED,
    Problem,
    ProjectionInputs,
    load_problem,
)
from knnlm.experiments.softmax_bottleneck.projection import score
from knnlm.experiments.softmax_bottleneck.scores import (
    Arrays,
    arrays_of,
    read_scores,
    save_scores,
)
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, each_missing, making
from knnlm.runtime.places import places

OPTIMA = "optima"
OWN = "own"


class Unit(NamedTuple):
    """One optimum of all sampled contexts: whose targets, and on which head."""

    target: str
    head: str

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.target}.{self.head}.npz"


def units_of(settings: Mapping[str, Any], others: Collection[str]) -> list[Unit]:
    """Return the optima: of the tuned kNN-LM on every head, of the others on the LM's own.

    Args:
        settings: the block `softmax_bottleneck` of the config.
        others: names of the other models whose heads are tried.
    """
    heads = [OWN, *(f"rank_{rank}" for rank in settings["ranks"]), *others]
    return [
        *(Unit(TUNED, head) for head in heads),
        *(Unit(target, OWN) for target in TARGETS if target != TUNED),
    ]


def project_on_heads(
    target: Target,
    *,
    inputs: ProjectionInputs,
    others: Sequence[Path],
    points: Mapping[str, Point],
    settings: Mapping[str, Any],
) -> None:
    """Solve the projection onto each linear head to its certified optimum.

    An optimum is a unit: a killed run goes on with the next one.

    Args:
        target: for each optimum nll of the targets, both KLs and the certificate, (n,) float64;
            `places` (n,) of the sampled queries.
        inputs: the LM, its queries and their neighbors.
        others: the models of settings["heads"], whose heads are tried; of one seed, or none.
        points: k, temperature and lmbda of each kNN-LM, by name.
        settings: the block `softmax_bottleneck` of the config.

    Raises:
        ArtifactError: if the folders do not belong together, or the tokens of another model
            are others.
    """
    found = places(others, kind="model", by=("model", "seed"))
    heads = {name: found[name, target.seed] for name in settings["heads"] if others}
    tokenizer = read_manifest(inputs.model, kind="model")["made_from"]["tokenizer"]
    made_from = inputs.origins()
    for name, folder in heads.items():
        require_origin(folder, kind="model", role="tokenizer", expected=tokenizer)
        made_from[f"head of {name}"] = identity(folder, kind="model")
    units = units_of(settings, heads)
    described = {name: point._asdict() for name, point in points.items()}
    with making(
        target,
        kind=OPTIMA,
        made_from=made_from,
        settings={**settings, "points": described},
        apart={"points": str(described)},
    ) as made:
        made.contents |= {"optima": [unit._asdict() for unit in units]}
        problem_of = lru_cache(maxsize=1)(  # units of one target follow each other
            lambda name: load_problem(inputs, points[name], positions=settings["positions"])
        )
        files = {unit: made.folder / unit.file for unit in units}
        for unit in each_missing(files, label="optima", name="heads"):
            problem = problem_of(unit.target)
            head = _head(unit.head, problem, heads).to(problem.targets.device)
            _solve(unit, problem, head, made.folder, settings)


def read_optima(folder: Path, sampled: NDArray[np.int64]) -> dict[Unit, Arrays]:
    """Return every optimum of an artifact.

    Args:
        folder: from `project_on_heads`.
        sampled: (n,), the queries that it must be of.

    Raises:
        ArtifactError: if it is of others, or not whole.
    """
    units = [Unit(**unit) for unit in read_manifest(folder, kind=OPTIMA)["contents"]["optima"]]
    return {unit: read_scores(folder / unit.file, sampled) for unit in units}


def _head(name: str, problem: Problem, others: Mapping[str, Path]) -> Tensor:
    """Return a head (n_tokens, dim) by name."""
    own = head_weight(problem.network)
    if name == OWN:
        return own
    if name in others:
        return head_weight(load_model(others[name])).detach()
    return truncated_head(own, rank=int(name.removeprefix("rank_")))


def _solve(
    unit: Unit, problem: Problem, head: Tensor, folder: Path, settings: Mapping[str, Any]
) -> None:
    """Find one optimum and write it with its certificate."""
    n, tile = len(problem.mixture), settings["tile"]
    start = problem.mixture.lm_hidden if unit.head == OWN else torch.zeros(n, head.shape[1])
    wide = head.double()
    found = optimum(
        wide,
        problem.mixture,
        start.to(head.device),
        **settings["optimum"],
        tile=tile,
    )
    scores = score(lambda z: z @ wide.T, found.z, problem.mixture, problem.targets, tile=tile)
    arrays: Arrays = arrays_of(scores) | {
        "certificate": found.certificate.cpu().numpy(),
        "rank": np.array(head.shape[1]),
        "evaluations": np.array(found.n_evaluations),
    }
    save_scores(folder / unit.file, problem.places, arrays)
    LOGGER.info(
        "%s, head %s: mean KL %.4f after %d evaluations, %.1f %% of the queries certified",
        unit.target,
        unit.head,
        arrays["kl_p_f"].mean(),
        found.n_evaluations,
        100 * np.mean(arrays["certificate"] <= settings["optimum"]["tolerance"]),
    )
