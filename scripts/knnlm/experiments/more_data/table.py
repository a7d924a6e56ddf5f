"""Whether retrieval from more text replaces training on it.

Khandelwal et al. (2020), Table 3 and Figure 2: an LM that was trained on a part of a text, with
datastores of nested shares of the whole; beside it the LM that was trained on the whole, and ours:
the LM of the part, trained on for as many FLOPs as the datastore and its searches take.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import tidy
from knnlm.experiments.more_data.sizes import Size, crossing_rows, tuned_rows
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.largest_k import points_of
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import KNN_LM, ScoredSplit
from knnlm.plan.sizes import ModelSize
from knnlm.retrieval.shares import KIND, ShareNeighbors, load_share_neighbors
from knnlm.retrieval.tuning import tune
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.places import places

EXPERIMENT = "more_data"
OTHERS = ("whole", "further")  # LMs without retrieval, by their names in the settings
COORDINATES = ("share",)  # of the whole datastore


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the LMs and the kNN-LM of every size on test, tuned on validation, in pairs.

    Args:
        inputs: queries of the LM of the part on both splits, of the others on test; neighbors in
            every share, of both splits.
        settings: corpus, lm_seeds, baseline, datastores, the experiment's own block, and of the
            FLOPs: size of the LM, its settings, and those of the one that was trained on.

    Returns:
        The table, with the column `share` of the size of the datastore.

    Raises:
        ArtifactError: if folders belong to different models or positions.
    """
    run = ScoredRun.of(EXPERIMENT, {"neighbors": [], "tuned": [], **inputs}, settings)
    own, seed = settings[EXPERIMENT], run.seeds[0]
    model = run.datastores[own["datastore"]]["model"]
    names = ("datastore", "seed", "index", "split")
    found = places(inputs["shares"], kind=KIND, by=names)
    place = (own["datastore"], seed, own["index"])
    splits = {
        split: run.scored(seed, split, model=model, searched_in=[own["datastore"]])
        for split in ("validation", "test")
    }
    loaded = {split: _of(found[*place, split], splits[split]) for split in splits}
    test, rows = splits["test"], splits["test"].rows("lm", "", splits["test"].nll, against={})
    nlls = {"lm": test.nll}
    for name in OTHERS:
        other = run.scored(seed, model=own[name], searched_in=[own["datastore"]])
        test.require_paired(other)
        rows += other.rows(name, "", other.nll, against=nlls)
        nlls[name] = other.nll
    for name, sizes in _sizes(splits, loaded, grid=run.baseline["grid"]).items():
        rows += _rows_of_sizes(splits, name, sizes, nlls)
    rows += _flops(test, loaded["test"], settings)
    return {"table": tidy(rows, coordinates=COORDINATES)}


def _of(folder: Path, scored: ScoredSplit) -> ShareNeighbors:
    """Return the neighbors of a split in every share."""
    expected = identity(scored.queries.folder, kind="queries")
    require_origin(folder, kind=KIND, role="queries", expected=expected)
    return load_share_neighbors(folder)


def _sizes(
    splits: Mapping[str, ScoredSplit],
    loaded: Mapping[str, ShareNeighbors],
    *,
    grid: Mapping[str, Any],
) -> dict[str, list[Size]]:
    """Return the kNN-LM of every share: all tuned, and with as many neighbors as in the paper."""
    validation, sizes = splits["validation"], {"tuned": [], "largest_k": []}
    for share in loaded["test"].shares:
        LOGGER.info("share %s", share)
        found = {split: loaded[split].of(share) for split in splits}
        scored = {split: (splits[split], found[split]) for split in splits}
        arrays = (found["validation"].distances, found["validation"].values)
        tuning = tune(*arrays, validation.targets, -validation.nll, grid=grid)
        for name, point in points_of(tuning).items():
            size = Size.of(
                share, loaded["test"].n_entries(share), point, lmbdas=tuning.lmbdas, **scored
            )
            sizes[name].append(size)
    return sizes


def _rows_of_sizes(
    splits: Mapping[str, ScoredSplit],
    name: str,
    sizes: Sequence[Size],
    nlls: Mapping[str, NDArray[np.float64]],
) -> list[Row]:
    """Return the rows of the kNN-LM by size, each compared with the next smaller one too."""
    validation, test, rows = splits["validation"], splits["test"], []
    for smaller, size in zip([None, *sizes], sizes, strict=False):
        against = {**nlls, **({"next_smaller": smaller.nll} if smaller else {})}
        setting = f"{size.share:g}/{name}"
        of_size = test.rows(KNN_LM, setting, size.nll, against=against)
        of_size += tuned_rows(validation, setting, size, sizes[0])
        rows += [{**row, "share": size.share} for row in of_size]
    return [*rows, *crossing_rows(test, name, sizes, nlls["whole"])]


def _flops(test: ScoredSplit, found: ShareNeighbors, settings: Mapping[str, Any]) -> list[Row]:
    """Return what the datastore and the searches of both splits take, and the control's training.

    Matrix products as the plan counts them; a training takes thrice a forward pass.
    """
    size, model = ModelSize(**settings["size"]), settings["model"]
    store, tokens = (
        settings["datastores"][settings[EXPERIMENT]["datastore"]],
        found.n_entries(found.shares[-1]),
    )
    read = tokens * model["context"] / min(store["stride"], model["context"])
    searches = 2 * found.contents["n_queries"] * 2 * tokens * size.width
    trained = settings["further"]["training"]["tokens"]
    flops = {
        KNN_LM: size.forward(read, span=model["context"]) + searches,
        "further": 3 * size.forward(trained, span=model["context"], scored=trained),
    }
    names = {**test.names, "split": "", "metric": "flops", "n": 1, "unit": "FLOPs"}
    return [{**names, "method": method, "value": value} for method, value in flops.items()]
