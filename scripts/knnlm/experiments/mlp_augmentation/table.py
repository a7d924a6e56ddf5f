"""Whether an MLP can stand in the place of the datastore.

Chiang et al. (2024), Table 2 and Section 5: an MLP trained on the datastore's pairs, interpolated
with the LM; its perplexity beside the LM's and the kNN-LM's, the bytes that each stores and the
FLOPs that each query costs. Beside them the controls, so that what the replacement brings is told
from what more training of the same layers brings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import read_table, tidy
from knnlm.experiments.mlp_augmentation.cost import Stored, flops_rows, storage_rows
from knnlm.experiments.mlp_augmentation.macondo import macondo_rows
from knnlm.experiments.mlp_augmentation.published_sizes import published_rows
from knnlm.experiments.mlp_augmentation.stored_replacement import KIND, load_replacement
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mixture_weight import best_lmbda
from knnlm.retrieval.mlp_replacement import replacement_log_probs
from knnlm.retrieval.tuning import lmbdas_of
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.places import places

EXPERIMENT = "mlp_augmentation"
SPLITS = ("validation", "test")
ALONE, INTERPOLATED = "alone", "interpolated"

LogProbs = dict[str, NDArray[np.float64]]  # of the targets of each split, in nats
Method = tuple[str, str]  # method and setting, as in the table


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment: on test, every lmbda tuned on validation.

    Args:
        inputs: queries of the baseline's LM, neighbors of test by each of its indexes, and its
            tuned points; models, datastores and indexes; replacements, controls and
            control_queries; macondo_table, the table of overspecification.
        settings: corpus, lm_seeds, baseline, datastores, indexes and mlp_augmentation.

    Returns:
        `table`. What can be mixed with the LM is `alone` or `interpolated`.

    Raises:
        ArtifactError: if folders belong to different models or seeds, or a control scored other
            positions.
    """
    run = ScoredRun.of(EXPERIMENT, inputs, settings)
    indexes = {name: settings["indexes"][name] for name in run.baseline["indexes"]}
    training = settings[EXPERIMENT]["training"]
    by = ("control", "seed", "split")
    control_queries = places(inputs["control_queries"], kind="queries", by=by)
    rows: list[Row] = []
    for seed in run.seeds:
        scored = {split: run.scored(seed, split) for split in SPLITS}
        of_seed = AugmentedSeed(
            scored=scored,
            stored=stored_of(seed, inputs, settings),
            retrieved={name: run.retrieved(scored["test"], index=name) for name in indexes},
            control_queries={
                name: {split: control_queries[name, seed, split] for split in SPLITS}
                for name in settings[EXPERIMENT]["controls"]
            },
            lmbdas=lmbdas_of(run.baseline["grid"]),
        )
        rows += of_seed.perplexity_rows(against=run.baseline["index"])
        names = {**run.names, "model": run.model, "seed": seed}
        rows += storage_rows(names, of_seed.stored)
        ks = {name: found.tuned.point.k for name, found in of_seed.retrieved.items()}
        rows += flops_rows(names, of_seed.stored, training, indexes=indexes, ks=ks)
    rows += published_rows(run.names)
    (overspecification,) = inputs["macondo_table"]
    macondo = tidy(macondo_rows(read_table(overspecification), experiment=EXPERIMENT))
    return {"table": pd.concat([table_of(rows), macondo], ignore_index=True)}


def stored_of(seed: int, inputs: Inputs, settings: Mapping[str, Any]) -> Stored:
    """Return the folders of one LM seed, by what their manifests say."""
    baseline, own = settings["baseline"], settings[EXPERIMENT]
    datastore = baseline["datastore"]
    by = ("datastore", "seed")
    indexes = places(inputs["indexes"], kind="index", by=(*by, "index"))
    replacements = places(inputs["replacements"], kind=KIND, by=(*by, "head"))
    controls = places(inputs["controls"], kind="model", by=("control", "seed"))
    models = places(inputs["models"], kind="model", by=("model", "seed"))
    return Stored(
        model=models[settings["datastores"][datastore]["model"], seed],
        datastore=places(inputs["datastores"], kind="datastore", by=by)[datastore, seed],
        indexes={name: indexes[datastore, seed, name] for name in baseline["indexes"]},
        replacements={name: replacements[datastore, seed, name] for name in own["heads"]},
        controls={name: controls[name, seed] for name in own["controls"]},
    )


@dataclass(frozen=True)
class AugmentedSeed:
    """One LM seed: what was trained, scored and found.

    Attributes:
        scored: what the LM scored, by split.
        stored: what was trained and built.
        retrieved: neighbors of test, by index.
        control_queries: what the controls scored, by control and split.
        lmbdas: the grid, ascending.
    """

    scored: Mapping[str, ScoredSplit]
    stored: Stored
    retrieved: Mapping[str, Retrieved]
    control_queries: Mapping[str, Mapping[str, Path]]
    lmbdas: NDArray[np.float64]

    def perplexity_rows(self, *, against: str) -> list[Row]:
        """Return every method on test, and its paired differences to the LM, kNN and controls."""
        test = self.scored["test"]
        rows, mixed = self._mixed()
        knn = {(KNN_LM, f"{name}/tuned"): found.nll for name, found in self.retrieved.items()}
        nlls = knn | mixed
        baselines = {"lm": test.nll, KNN_LM: self.retrieved[against].nll}
        rows += test.rows("lm", "", test.nll, against={})
        for (method, setting), nll in nlls.items():
            way = setting.split("/")[-1]
            rivals = {name: nlls[name, way] for name in self.stored.controls if method == "mlp"}
            rows += test.rows(method, setting, nll, against=baselines | rivals)
        return rows

    def _mixed(self) -> tuple[list[Row], dict[Method, NDArray[np.float64]]]:
        """Return the tuned lmbda, and the nll on test alone and interpolated, of what is mixed."""
        validation, test = (self.scored[split] for split in SPLITS)
        rows, nlls = [], {}
        for (method, setting), log_probs in (self._replaced() | self._continued()).items():
            lmbda = best_lmbda(-validation.nll, log_probs["validation"], self.lmbdas)
            nlls[method, f"{setting}{ALONE}"] = -log_probs["test"]
            nlls[method, f"{setting}{INTERPOLATED}"] = -mix_log_probs(
                -test.nll, log_probs["test"], lmbda
            )
            rows.append(
                validation.row_names(method, f"{setting}{INTERPOLATED}")
                | {"metric": "lmbda", "value": lmbda, "unit": "weight on the method"}
                | {"n": len(validation.places)}
            )
        return rows, nlls

    def _replaced(self) -> dict[Method, LogProbs]:
        """Return what each replacement makes of the stored keys."""
        found = {}
        origin = identity(self.stored.datastore, kind="datastore")
        site = read_manifest(self.stored.datastore, kind="datastore")["settings"]["site"]
        for head, folder in self.stored.replacements.items():
            LOGGER.info("%s: scoring the replacement", folder)
            require_origin(folder, kind=KIND, role="datastore", expected=origin)
            module = load_replacement(folder, model=self.stored.model)
            found["mlp", f"{head}/"] = {
                split: replacement_log_probs(module, scored.queries.hidden(site), scored.targets)
                for split, scored in self.scored.items()
            }
        return found

    def _continued(self) -> dict[Method, LogProbs]:
        """Return the log-probabilities of the controls, after checking that they are paired."""
        found: dict[Method, LogProbs] = {}
        for name, folders in self.control_queries.items():
            model = identity(self.stored.controls[name], kind="model")
            for split, scored in self.scored.items():
                require_origin(folders[split], kind="queries", role="model", expected=model)
                theirs = replace(scored, queries=load_queries(folders[split]))
                scored.require_paired(theirs)
                found.setdefault((name, ""), {})[split] = -theirs.nll
        return found
