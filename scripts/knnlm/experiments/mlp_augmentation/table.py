"""Whether an MLP can stand in the place of the datastore.

Chiang et al. (2024), Table 2 and Section 5: an MLP trained on the datastore's pairs, interpolated
with the LM; its perplexity beside the LM's and the kNN-LM's, the bytes that each stores and the
FLOPs that each query costs. Beside them the controls, so that what the replacement brings is told
from what more training of the same layers brings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.scored_text import Row, ScoredText
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.mlp_augmentation.cost import Stored, flops_rows, storage_rows
from knnlm.experiments.mlp_augmentation.macondo import macondo_rows
from knnlm.experiments.mlp_augmentation.stored_replacement import load_replacement
from knnlm.experiments.shared.tuned_point import tuned_point
from knnlm.lm.scoring import Queries, load_queries
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mlp_replacement import target_log_probs
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.tuning import Point, nll_at
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.seeds import numpy_generator

EXPERIMENT = "mlp_augmentation"
SPLITS = ("validation", "test")
ALONE, INTERPOLATED = "alone", "interpolated"

LogProbs = dict[str, NDArray[np.float64]]  # of the targets of each split, in nats
Method = tuple[str, str]  # method and setting, as in the table


def evaluate_mlp_augmentation(
    *,
    corpus: str,
    model: str,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    knn: Mapping[str, Any],
    indexes: Mapping[str, Mapping[str, Any]],
    knn_table: pd.DataFrame,
    macondo_table: pd.DataFrame,
    models: Sequence[Path],
    datastores: Sequence[Path],
    index_folders: Sequence[Path],
    queries: Sequence[Path],
    neighbors: Sequence[Path],
    replacements: Sequence[Path],
    controls: Sequence[Path],
    control_queries: Sequence[Path],
) -> pd.DataFrame:
    """Return the table of the experiment: on test, every lmbda tuned on validation.

    Args:
        corpus: its name.
        model: name of the LM whose hidden states are the keys.
        seeds: the LM seeds.
        settings: the block `mlp_augmentation` of the config.
        training: the block `mlp_replacement`.
        knn: the block `knn_perplexity`: its index is the one that the others are compared with.
        indexes: the blocks of its indexes, by name.
        knn_table: the table of knn_perplexity, with k, temperature and lmbda of each index.
        macondo_table: the table of overspecification, for the rows of Macondo.
        models: the LM, for each seed.
        datastores: for each seed.
        index_folders: for each seed and index.
        queries: for each seed and split, scored by the LM.
        neighbors: for each seed and index, of test.
        replacements: for each seed and head.
        controls: model artifacts, for each seed and control.
        control_queries: for each seed, control and split.

    Returns:
        A tidy table. What can be mixed with the LM is `alone` or `interpolated`.

    Raises:
        ArtifactError: if folders belong to different models or seeds.
        ValueError: if a control scored other positions.
    """
    heads, names = settings["heads"], settings["controls"]
    scored = dict(zip(product(seeds, SPLITS), queries, strict=True))
    stored = dict(zip(seeds, zip(models, datastores, strict=True), strict=True))
    built = dict(zip(product(seeds, indexes), index_folders, strict=True))
    found = dict(zip(product(seeds, indexes), neighbors, strict=True))
    networks = dict(zip(product(seeds, heads), replacements, strict=True))
    continued = dict(zip(product(seeds, names), controls, strict=True))
    theirs = dict(zip(product(seeds, names, SPLITS), control_queries, strict=True))
    shared = _shared(load_queries(scored[seeds[0], "test"]), knn["bootstrap"])
    rows: list[Row] = []
    for seed in seeds:
        run = Run(
            names={"experiment": EXPERIMENT, "corpus": corpus, "model": model, "seed": seed},
            lmbdas=knn["grid"]["lmbdas"],
            stored=Stored(
                model=stored[seed][0],
                datastore=stored[seed][1],
                indexes={name: built[seed, name] for name in indexes},
                replacements={name: networks[seed, name] for name in heads},
                controls={name: continued[seed, name] for name in names},
            ),
            queries={split: scored[seed, split] for split in SPLITS},
            neighbors={name: found[seed, name] for name in indexes},
            points={name: tuned_point(knn_table, index=name, seed=seed) for name in indexes},
            control_queries={
                name: {split: theirs[seed, name, split] for split in SPLITS} for name in names
            },
            shared=shared,
        )
        rows += run.perplexity_rows(against=knn["index"])
        rows += storage_rows(run.names, run.stored)
        points = {name: point.k for name, point in run.points.items()}
        rows += flops_rows(run.names, run.stored, training, indexes=indexes, ks=points)
    table = tidy(rows)
    macondo = tidy(macondo_rows(macondo_table, experiment=EXPERIMENT))
    return pd.concat([table, means_over_seeds(table), macondo], ignore_index=True)


def best_lmbda(
    lm: NDArray[np.float64], other: NDArray[np.float64], lmbdas: Mapping[str, Any]
) -> float:
    """Return the weight on `other` with the least nll; of equal ones, the smallest.

    Args:
        lm: (n_queries,), log-probabilities of the targets of validation.
        other: (n_queries,), the same of what is mixed with the LM.
        lmbdas: `low`, `high` and `count` of the grid.
    """
    grid = np.linspace(lmbdas["low"], lmbdas["high"], lmbdas["count"])
    nll = [-mix_log_probs(lm, other, lmbda).mean() for lmbda in grid]
    return float(grid[int(np.argmin(nll))])


def _shared(test: Queries, bootstrap: Mapping[str, int]) -> ScoredText:
    """Return what every method shares on test: the resamples are the same for all seeds."""
    generator = numpy_generator(bootstrap["seed"], "bootstrap", "documents")
    resampled = DocumentBootstrap(test.documents, samples=bootstrap["samples"], generator=generator)
    return ScoredText(words=test.words, lines=test.lines, bootstrap=resampled)


@dataclass(frozen=True)
class Run:
    """One LM seed: what was trained, scored and found.

    `queries`, `neighbors` (of test), `points` and `control_queries` are by split, index, index,
    and control and split.
    """

    names: Mapping[str, Any]
    lmbdas: Mapping[str, Any]
    stored: Stored
    queries: Mapping[str, Path]
    neighbors: Mapping[str, Path]
    points: Mapping[str, Point]
    control_queries: Mapping[str, Mapping[str, Path]]
    shared: ScoredText

    def perplexity_rows(self, *, against: str) -> list[Row]:
        """Return every method on test, and its paired differences to the LM, kNN and controls."""
        lm = {split: load_queries(folder) for split, folder in self.queries.items()}
        rows, nlls = self._mixed(lm)
        nlls = {("lm", ""): -lm["test"].lm_log_probs} | self._knn(lm["test"]) | nlls
        baselines = {"lm": nlls["lm", ""], "knn_lm": nlls["knn_lm", f"{against}/tuned"]}
        for (method, setting), nll in nlls.items():
            names = {**self.names, "split": "test", "method": method, "setting": setting}
            rows += self.shared.perplexities(names, nll)
            way = setting.split("/")[-1]
            rivals = {name: nlls[name, way] for name in self.stored.controls if method == "mlp"}
            for name, baseline in (baselines | rivals).items():
                if method not in ("lm", name):
                    rows += self.shared.differences(names, nll, baseline, against=name)
        return rows

    def _knn(self, test: Queries) -> dict[Method, NDArray[np.float64]]:
        """Return the nll of the kNN-LM on test, for each index at its tuned point."""
        nlls = {}
        for name, folder in self.neighbors.items():
            origin = identity(self.queries["test"], kind="queries")
            require_origin(folder, kind="neighbors", role="queries", expected=origin)
            found = load_neighbors(folder)
            nlls["knn_lm", f"{name}/tuned"] = nll_at(
                self.points[name], found.distances, found.values, test.targets, test.lm_log_probs
            )
        return nlls

    def _mixed(
        self, lm: Mapping[str, Queries]
    ) -> tuple[list[Row], dict[Method, NDArray[np.float64]]]:
        """Return the tuned lmbda, and the nll on test alone and interpolated, of what is mixed."""
        rows, nlls = [], {}
        for (method, setting), log_probs in (self._replaced(lm) | self._continued(lm)).items():
            lmbda = best_lmbda(lm["validation"].lm_log_probs, log_probs["validation"], self.lmbdas)
            mixed = mix_log_probs(lm["test"].lm_log_probs, log_probs["test"], lmbda)
            nlls[method, f"{setting}{ALONE}"] = -log_probs["test"]
            nlls[method, f"{setting}{INTERPOLATED}"] = -mixed
            rows.append(
                {**self.names, "split": "validation", "method": method, "metric": "lmbda"}
                | {"setting": f"{setting}{INTERPOLATED}", "value": lmbda}
                | {"n": lm["validation"].n_queries, "unit": "weight on the method"}
            )
        return rows, nlls

    def _replaced(self, lm: Mapping[str, Queries]) -> dict[Method, LogProbs]:
        """Return what each replacement makes of the stored keys."""
        scored = {}
        origin = identity(self.stored.datastore, kind="datastore")
        site = read_manifest(self.stored.datastore, kind="datastore")["settings"]["site"]
        for head, folder in self.stored.replacements.items():
            LOGGER.info("seed %s: scoring the replacement %s", self.names["seed"], head)
            require_origin(folder, kind="mlp_replacement", role="datastore", expected=origin)
            module = load_replacement(folder, model=self.stored.model)
            scored["mlp", f"{head}/"] = {
                split: target_log_probs(module, queries.hidden(site), queries.targets)
                for split, queries in lm.items()
            }
        return scored

    def _continued(self, lm: Mapping[str, Queries]) -> dict[Method, LogProbs]:
        """Return the log-probabilities of the controls, after checking that they are paired."""
        scored = {}
        for name, folders in self.control_queries.items():
            theirs = {split: load_queries(folder) for split, folder in folders.items()}
            for split, queries in theirs.items():
                if not np.array_equal(queries.positions, lm[split].positions):
                    raise ValueError(
                        f"expected {name} to score the same positions of {split} as the LM; remove "
                        f"{folders[split]} and run the same snakemake command again"
                    )
            scored[name, ""] = {split: queries.lm_log_probs for split, queries in theirs.items()}
        return scored
