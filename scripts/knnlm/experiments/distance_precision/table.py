"""How much the precision of distances matters: Khandelwal et al. (2020), Section 5.

The same found neighbors with distances by codes and by full keys, and the true neighbors of exact
search; each with temperature and lmbda tuned on validation, with as many neighbors as were found,
as in the paper, and with k tuned too.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.largest_k import points_of
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM, ScoredSplit
from knnlm.retrieval.neighbors import Neighbors
from knnlm.retrieval.tuning import Point, tune
from knnlm.runtime.logs import LOGGER

EXPERIMENT = "distance_precision"
CODES, FULL, EXACT = "codes", "full_keys", "exact"
SPLITS = ("validation", "test")


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return LM and kNN-LM by each distance on test, tuned on validation, compared in pairs.

    Args:
        inputs: queries of the baseline's LM, neighbors by the exact index and by the one that has
            both distances, of validation and test, and tuned points.
        settings: corpus, lm_seeds, baseline, datastores and the experiment's own block.

    Raises:
        ArtifactError: if the neighbors were found without distances by codes.
    """
    run, rows = ScoredRun.of(EXPERIMENT, inputs, settings), []
    for seed in run.seeds:
        LOGGER.info("seed %s", seed)
        rows += _rows_of_seed(run, seed, index=settings[EXPERIMENT]["index"])
    return {"table": table_of(rows)}


def by_codes(found: Neighbors) -> Neighbors:
    """Return the same neighbors with their distances by codes, ascending."""
    order = np.argsort(found.rough, axis=1, kind="stable")
    arrays = {"ids": found.ids, "distances": found.rough, "values": found.values}
    sorted_ = {name: np.take_along_axis(array, order, axis=1) for name, array in arrays.items()}
    return replace(found, **sorted_, rough=None)


def _rows_of_seed(run: ScoredRun, seed: int, *, index: str) -> list[Row]:
    scored = {split: run.scored(seed, split) for split in SPLITS}
    found = {split: _by_distance(run, scored[split], index) for split in SPLITS}
    validation, test = scored["validation"], scored["test"]
    rows, nlls = test.rows("lm", "no datastore", test.nll, against={}), {}
    for name in (CODES, FULL, EXACT):
        near = found["validation"][name]
        arrays = (near.distances, near.values, validation.targets, -validation.nll)
        tuning = tune(*arrays, grid=run.baseline["grid"])
        for way, point in points_of(tuning).items():
            nlls[name, way] = test.knn_nll(found["test"][name], point)
            against = {"lm": test.nll}
            against |= {by: nlls[by, way] for by in (CODES, FULL) if (by, way) in nlls}
            rows += test.rows(KNN_LM, f"{name}/{way}", nlls[name, way], against=against)
            rows += _point_rows(validation, f"{name}/{way}", point)
    return rows


def _by_distance(run: ScoredRun, scored: ScoredSplit, index: str) -> dict[str, Neighbors]:
    """Return the neighbors of positions by the name of their distances."""
    place = (run.baseline["datastore"], scored.names["seed"])
    split = scored.names["split"]
    full = scored.neighbors(run.neighbors[*place, index, split], rough=True)
    exact = scored.neighbors(run.neighbors[*place, run.baseline["index"], split])
    return {CODES: by_codes(full), FULL: full, EXACT: exact}


def _point_rows(validation: ScoredSplit, setting: str, point: Point) -> list[Row]:
    """Return the settings that validation chose."""
    names = validation.row_names(KNN_LM, setting) | {"n": len(validation.targets)}
    units = {"k": "neighbors", "temperature": "squared distance", "lmbda": "weight on kNN"}
    return [
        {**names, "metric": metric, "value": getattr(point, metric), "unit": unit}
        for metric, unit in units.items()
    ]
