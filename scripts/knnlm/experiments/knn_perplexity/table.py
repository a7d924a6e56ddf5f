"""Whether retrieval from its own training data helps the LM.

Chiang et al. (2024), Table 1, and Khandelwal et al. (2020), Table 1: perplexity of the LM and of
the kNN-LM on test, with k, temperature and lmbda tuned on validation, and at the published
values. Beside them the control: the same LM trained longer, without retrieval and with its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import MINIMUM_DOCUMENTS
from knnlm.evidence.metrics import hits_at_k
from knnlm.evidence.references import reference_rows, told_rows
from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import tidy
from knnlm.evidence.token_classes import BEYOND_BINS
from knnlm.experiments.knn_perplexity.classes import classes_of
from knnlm.experiments.knn_perplexity.curves import COORDINATES, curves, level
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.runtime.logs import LOGGER

EXPERIMENT = "knn_perplexity"
KNN_CONTROL = "knn_control"  # the method's name in tables: the control with its own datastore
SPLITS = ("validation", "test")
RARE, FREQUENT = "train count: 1-2", f"train count: {BEYOND_BINS}"  # classes that are compared


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment, and the curves over lmbda, temperature and k.

    Args:
        inputs: text, tokens, queries of the baseline's LM and of the control, neighbors by each
            index of the baseline, those of the control, and tuned points.
        settings: corpus, lm_seeds, baseline and datastores.

    Returns:
        `table`, and `grid`: perplexities on validation, with the columns k, temperature (relative
        to the mean squared distance) and lmbda; `setting` says along which of them a row lies,
        or that it is the tuned point.

    Raises:
        ArtifactError: if folders belong to different corpora, models or seeds, or the control
            scored other positions.
    """
    (text,), (tokens,) = inputs["text"], inputs["tokens"]
    _require_one_corpus(text, tokens, inputs["queries"])
    run = ScoredRun.of(EXPERIMENT, inputs, settings)
    first = run.scored(run.seeds[0])
    classes = classes_of(text, tokens, first.queries)
    rows, on_validation = [], []
    for seed in run.seeds:
        LOGGER.info("seed %s", seed)
        of_seed = ScoredSeed.of(run, seed, classes)
        rows += of_seed.rows()
        on_validation += of_seed.curves()
    names = {**run.names, "split": "test"}
    rows += reference_rows(names, text, tokens, bootstrap=run.baseline["bootstrap"])
    rows += told_rows(names, text)
    rows += _counts(names, first, len(run.seeds), run.retrieved(first).n_entries)
    return {"table": table_of(rows), "grid": tidy(on_validation, coordinates=COORDINATES)}


@dataclass(frozen=True)
class ScoredSeed:
    """One LM seed: what its LM and, if there is one, the control scored, by method and split."""

    run: ScoredRun
    splits: Mapping[str, Mapping[str, ScoredSplit]]
    classes: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(
        cls, run: ScoredRun, seed: int, classes: Mapping[str, NDArray[np.bool_]]
    ) -> "ScoredSeed":
        """Open the queries of a seed, and check that the control's are of the same tokens."""
        control, models = run.baseline["control"], {"lm": run.model}
        if control and seed in control["seeds"]:
            models["control"] = run.datastores[control["datastore"]]["model"]
        splits = {
            method: {split: run.scored(seed, split, model=model) for split in SPLITS}
            for method, model in models.items()
        }
        for scored in splits.values():
            for split in SPLITS:
                splits["lm"][split].require_paired(scored[split])
        return cls(run, splits, classes)

    def rows(self) -> list[Row]:
        """Return the rows of LM, control and kNN-LM on test, and how the kNN-LM was tuned."""
        rows: list[Row] = []
        nlls = {method: scored["test"].nll for method, scored in self.splits.items()}
        for method, scored in self.splits.items():
            against = {} if method == "lm" else {"lm": nlls["lm"]}
            rows += scored["test"].rows(method, "", nlls[method], against=against)
            if against:
                rows += self.class_rows(scored["test"], method, "", nlls[method] - nlls["lm"])
        for index in self.run.baseline["indexes"]:
            retrieved = self.run.retrieved(self.splits["lm"]["test"], index=index)
            rows += self.index_rows(index, retrieved, against=nlls)
        return rows + self.control_rows(nlls)

    def control_rows(self, against: Mapping[str, NDArray[np.float64]]) -> list[Row]:
        """Return the rows of the control's own kNN-LM, if the seed has a control."""
        if "control" not in self.splits:
            return []
        baseline, control = self.run.baseline, self.splits["control"]["test"]
        with_knn = self.run.retrieved(control, datastore=baseline["control"]["datastore"])
        knn_lm = self.run.retrieved(self.splits["lm"]["test"]).nll
        setting = f"{baseline['index']}/tuned"
        return with_knn.rows(setting, against={**against, KNN_LM: knn_lm}, method=KNN_CONTROL)

    def curves(self) -> list[Row]:
        """Return the levels of LM and control on validation, and the curves of the kNN-LM."""
        levels = [
            level(scored["validation"], method, "", scored["validation"].nll)
            for method, scored in self.splits.items()
        ]
        on_validation = self.run.retrieved(self.splits["lm"]["validation"])
        return levels + curves(on_validation, self.run.baseline["index"])

    def index_rows(
        self, index: str, retrieved: Retrieved, *, against: Mapping[str, NDArray[np.float64]]
    ) -> list[Row]:
        """Return how the kNN-LM of one index was tuned on validation, and its rows on test."""
        baseline, scored, found = self.run.baseline, retrieved.scored, retrieved.found
        rows = [*retrieved.tuned_rows(f"{index}/tuned"), _recall_row(index, retrieved)]
        for name, point in _points(baseline, retrieved.tuned.point).items():
            nll, setting = scored.knn_nll(found, point), f"{index}/{name}"
            rows += scored.rows(KNN_LM, setting, nll, against=against)
            if name == "tuned" and index == baseline["index"]:
                rows += self.class_rows(scored, KNN_LM, setting, nll - against["lm"])
        names = scored.row_names(KNN_LM, index)
        for k in baseline["grid"]["k"]:
            hits = hits_at_k(found.values, scored.targets, k=k)
            rows.append(scored.text.share(names, f"hits_at_{k}", hits))
        return rows

    def class_rows(
        self, scored: ScoredSplit, method: str, setting: str, difference: NDArray[np.float64]
    ) -> list[Row]:
        """Return the mean change against the LM in each class of target tokens.

        Behind them stands, paired, by how much it is larger on rare words than on frequent ones.
        """
        prefix = f"{setting}/" if setting else ""
        rows = [
            scored.text.mean_difference(
                scored.row_names(method, prefix + name), difference, against="lm", mask=mask
            )
            for name, mask in self.classes.items()
        ]
        if {RARE, FREQUENT} <= self.classes.keys():
            names = scored.row_names(method, f"{prefix}{RARE} minus {FREQUENT}")
            masks = (self.classes[RARE], self.classes[FREQUENT])
            rows.append(scored.text.difference_of_classes(names, difference, *masks, against="lm"))
        return rows


def _points(baseline: Mapping[str, Any], tuned: Point) -> dict[str, Point]:
    """Return the settings that are reported on test, by name."""
    published = Point(**baseline["published"])
    warmed = published._replace(temperature=tuned.temperature)
    return {"tuned": tuned, "published": published, "published_at_tuned_temperature": warmed}


def _recall_row(index: str, retrieved: Retrieved) -> Row:
    """Return the share of the true nearest neighbors that an index found, on a sample."""
    searched = retrieved.searched
    n = searched["recall_queries"]
    measured = {"metric": "recall", "value": searched["recall"], "n": n, "unit": "share"}
    return retrieved.scored.row_names(KNN_LM, index) | measured


def _require_one_corpus(text: Path, tokens: Path, queries: Sequence[Path]) -> None:
    origin = identity(text, kind="text")
    require_origin(tokens, kind="tokens", role="text", expected=origin)
    origin = identity(tokens, kind="tokens")
    for folder in queries:
        require_origin(folder, kind="queries", role="tokens", expected=origin)


def _counts(names: Mapping[str, Any], test: ScoredSplit, n_seeds: int, n_entries: int) -> list[Row]:
    """Return how much of everything the numbers rest on."""
    if test.text.bootstrap.n_documents < MINIMUM_DOCUMENTS:
        LOGGER.warning("fewer than %s test documents: no intervals", MINIMUM_DOCUMENTS)
    counts = {
        "queries": test.queries.n_queries,
        "documents": test.text.bootstrap.n_documents,
        "lm_seeds": n_seeds,
        "datastore_entries": n_entries,
    }
    return [
        {**names, "metric": metric, "value": count, "n": count, "unit": "count"}
        for metric, count in counts.items()
    ]
