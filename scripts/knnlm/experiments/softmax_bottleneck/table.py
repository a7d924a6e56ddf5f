"""Whether the last layers of an LM can express the kNN-LM's distributions.

Chiang et al. (2024), Tables 1 (projections), 3 and 4: perplexity and KL of the nearest
distributions that the last layers can produce. Beside what the paper's optimizer reaches stand
where it starts, and the certified optimum: how much of the perplexity gap from the LM to the
kNN-LM is beyond the rank of the head, and how much is beyond the optimizer.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import Retrieved
from knnlm.experiments.softmax_bottleneck.optima import OPTIMA, OWN, Unit, read_optima
from knnlm.experiments.softmax_bottleneck.problem import TARGETS
from knnlm.experiments.softmax_bottleneck.projected_seed import ProjectedSeed
from knnlm.experiments.softmax_bottleneck.walk_rows import walk_rows
from knnlm.experiments.softmax_bottleneck.walks import PROJECTIONS, read_walks
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.runtime.places import places

EXPERIMENT = "softmax_bottleneck"


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment, all on the sampled positions of test.

    Args:
        inputs: queries and neighbors of test, tuned points, projections and optima.
        settings: corpus, lm_seeds, baseline, datastores and softmax_bottleneck.

    Returns:
        `table`. `method` is lm, knn_lm or the map; `setting` is target/start/direction/
        optimizer/stop, target/start/start, target/best/direction or target/optimum/head.

    Raises:
        ArtifactError: if folders belong to different queries or neighbors.
    """
    own = settings[EXPERIMENT]
    run = ScoredRun.of(EXPERIMENT, inputs, settings)
    projected = places(inputs["projections"], kind=PROJECTIONS, by=("seed", "last_layers"))
    solved = places(inputs["optima"], kind=OPTIMA, by=("seed",))
    rows: list[Row] = []
    for seed in run.seeds:
        folders = {name: projected[seed, name] for name in own["last_layers"]}
        retrieved = run.retrieved(run.scored(seed, positions=own["positions"]))
        _require_one_origin(retrieved, [solved[seed]], kind=OPTIMA)
        _require_one_origin(retrieved, folders.values(), kind=PROJECTIONS)
        of_seed = ProjectedSeed.of(retrieved, run.baseline["published"])
        certified = read_optima(solved[seed], of_seed.scored.places)
        rows += of_seed.baseline_rows()
        rows += of_seed.optimum_rows(certified, tolerance=own["optimum"]["tolerance"])
        nearest = {target: certified[Unit(target, OWN)]["kl_p_f"] for target in TARGETS}
        walked = {name: read_walks(at, of_seed.scored.places) for name, at in folders.items()}
        rows += walk_rows(of_seed, walked, nearest)
    return {"table": table_of(rows)}


def _require_one_origin(retrieved: Retrieved, folders: Iterable[Path], *, kind: str) -> None:
    """Check that projections or optima are of the neighbors that are evaluated."""
    scored = identity(retrieved.scored.queries.folder, kind="queries")
    found = identity(retrieved.folder, kind="neighbors")
    for folder in folders:
        require_origin(folder, kind=kind, role="queries", expected=scored)
        require_origin(folder, kind=kind, role="neighbors", expected=found)
