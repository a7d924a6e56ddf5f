"""Rank or optimizer? The certified optimum of linear heads, the targets held fixed.

min over z of KL[p || softmax(W z)] is convex, so what a head cannot express is told from what an
optimizer did not reach. W is the LM's own head, the same cut by SVD to fewer ranks, and the heads
of other models of the same vocabulary. f and f_g end in the LM's own head and so never come
nearer to p than its optimum.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from knnlm.experiments.shared.tuned_point import TUNED, tuned_point
from knnlm.experiments.softmax_bottleneck.convex_projection import optimum, truncated_head
from knnlm.experiments.softmax_bottleneck.problem import PUBLISHED, Problem, load_problem
from knnlm.experiments.softmax_bottleneck.projection import score
from knnlm.experiments.softmax_bottleneck.scores import (
    Arrays,
    arrays_of,
    origins_of,
    read_scores,
    save_scores,
)
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import read_manifest, require_origin, write_manifest
from knnlm.runtime.logs import LOGGER, Progress
from knnlm.runtime.making import partial_folder, publish
from knnlm.runtime.signals import stop_if_asked

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


def units_of(settings: Mapping[str, Any]) -> list[Unit]:
    """Return the optima: of the tuned kNN-LM on every head, of the published on the LM's own.

    Args:
        settings: the block `softmax_bottleneck` of the config.
    """
    heads = [OWN, *(f"rank_{rank}" for rank in settings["ranks"]), *settings["heads"]]
    return [*(Unit(TUNED, head) for head in heads), Unit(PUBLISHED, OWN)]


def project_on_heads(
    *,
    output: Path,
    fingerprint: str,
    model: Path,
    others: Mapping[str, Path],
    queries: Path,
    neighbors: Path,
    knn_table: pd.DataFrame,
    published: Mapping[str, Any],
    index: str,
    site: str,
    seed: int,
    settings: Mapping[str, Any],
) -> None:
    """Solve the projection onto each linear head to its certified optimum.

    An optimum is a unit: a killed run goes on with the next one.

    Args:
        output: the artifact: for each optimum nll of the targets, both KLs and the certificate,
            (n,) float64; `places` (n,) of the sampled queries.
        fingerprint: of the rule.
        model: the LM.
        others: the models whose heads are tried, by name.
        queries: of test, scored by the LM.
        neighbors: of these queries.
        knn_table: the table of knn_perplexity, with the tuned k, temperature and lmbda.
        published: the papers' fixed values of them.
        index: whose neighbors they are.
        site: of the datastore's keys.
        seed: of the LM.
        settings: the block `softmax_bottleneck` of the config.

    Raises:
        ArtifactError: if the folders do not belong together, or the tokens of another model
            are others.
    """
    points = {
        TUNED: tuned_point(knn_table, index=index, seed=seed),
        PUBLISHED: Point(**published),
    }
    made_from = origins_of(model=model, queries=queries, neighbors=neighbors, heads=others)
    partial = partial_folder(output, fingerprint, made_from | {"points": str(points)})
    tokenizer = read_manifest(model, kind="model")["made_from"]["tokenizer"]
    for folder in others.values():
        require_origin(folder, kind="model", role="tokenizer", expected=tokenizer)
    units = [*units_of(settings)]
    problem_at = functools.partial(
        load_problem,
        model=model,
        queries=queries,
        neighbors=neighbors,
        positions=settings["positions"],
        site=site,
    )
    _solve_missing(units, problem_at, points, others, partial, settings)
    write_manifest(
        partial,
        kind=OPTIMA,
        settings={
            **settings,
            "index": index,
            "points": {target: point._asdict() for target, point in points.items()},
        },
        contents={"optima": [unit._asdict() for unit in units]},
        made_from=made_from,
    )
    publish(partial, output)


def read_optima(folder: Path, places: NDArray[np.int64]) -> dict[Unit, Arrays]:
    """Return every optimum of an artifact.

    Args:
        folder: from `project_on_heads`.
        places: (n,), the queries that it must be of.

    Raises:
        ArtifactError: if it is of others, or not whole.
    """
    units = [Unit(**unit) for unit in read_manifest(folder, kind=OPTIMA)["contents"]["optima"]]
    return {unit: read_scores(folder / unit.file, places) for unit in units}


def _head(name: str, problem: Problem, others: Mapping[str, Path]) -> Tensor:
    """Return a head (n_tokens, dim) by name."""
    own = head_weight(problem.network)
    if name == OWN:
        return own
    if name in others:
        return head_weight(load_model(others[name])).detach()
    return truncated_head(own, rank=int(name.removeprefix("rank_")))


def _solve_missing(
    units: Sequence[Unit],
    problem_at: Callable[..., Problem],
    points: Mapping[str, Point],
    others: Mapping[str, Path],
    folder: Path,
    settings: Mapping[str, Any],
) -> None:
    """Solve the units that are not there yet, those of one target together."""
    missing = [unit for unit in units if not (folder / unit.file).is_file()]
    progress = Progress("optima", total=len(units), unit="heads", done=len(units) - len(missing))
    for target in dict.fromkeys(unit.target for unit in missing):
        problem = problem_at(point=points[target])
        for unit in (unit for unit in missing if unit.target == target):
            head = _head(unit.head, problem, others).to(problem.targets.device)
            _solve(unit, problem, head, folder, settings)
            progress.update(progress.done + 1)
            stop_if_asked()


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
