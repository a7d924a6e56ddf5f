"""What each distribution brings in the place of kNN's: gain, share of kNN's gain, and cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.metrics import share_of_gap
from knnlm.evidence.scored_text import Row
from knnlm.experiments.ruled_out import two_metrics
from knnlm.experiments.ruled_out.component import (
    SPLITS,
    TEST,
    VALIDATION,
    Component,
    Cost,
    best_mixture,
    mixed_nll,
)
from knnlm.experiments.ruled_out.subject import Subject
from knnlm.experiments.shared.cost import ADDED
from knnlm.experiments.shared.scored_split import KNN_LM
from knnlm.retrieval.interpolation import knn_probs
from knnlm.retrieval.tuning import axes_of

TUNED, TUNED_ON_TEST = "tuned", "tuned on test"  # the latter as in the paper: on what is reported
WAYS = {TUNED: VALIDATION, TUNED_ON_TEST: TEST}  # the split on which weight and option are chosen


@dataclass(frozen=True)
class Compared:
    """One LM seed: LM and kNN-LM, and what is held against them, all on the same positions.

    Attributes:
        subject: the LM.
        knn: nll of the kNN-LM on test, (n,) in nats, by the way in which it was tuned.
        lmbdas: weights that are tried.
    """

    subject: Subject
    knn: Mapping[str, NDArray[np.float64]]
    lmbdas: NDArray[np.float64]

    @classmethod
    def of(cls, subject: Subject, grid: Mapping[str, Any]) -> "Compared":
        """Score the kNN-LM, also with temperature and lmbda tuned on test as the paper's were.

        Args:
            subject: the LM.
            grid: of `baseline`.
        """
        retrieved, scored = subject.retrieved[TEST], subject.scored[TEST]
        (relative, lmbdas), tuned = axes_of(grid), retrieved.tuned
        distances, values = (
            a[:, : tuned.k] for a in (retrieved.found.distances, retrieved.found.values)
        )
        temperatures = relative * tuned.mean_squared_distance  # those that validation chose among
        matches = values == scored.targets[:, None]
        with np.errstate(divide="ignore"):
            log_probs = np.log(knn_probs(distances, matches, temperatures=temperatures))
        knn = Component(
            KNN_LM, "", "temperature", temperatures, {TEST: log_probs}, subject.knn_cost()
        )
        best = best_mixture(knn, TEST, scored.nll, lmbdas)
        on_test = mixed_nll(knn, TEST, scored.nll, best)
        return cls(subject, {TUNED: retrieved.nll, TUNED_ON_TEST: on_test}, lmbdas)

    def baseline_rows(self) -> list[Row]:
        """Return the rows of LM and kNN-LM, and what kNN costs."""
        scored = self.subject.scored[TEST]
        rows = scored.rows("lm", "", scored.nll, against={})
        for way, nll in self.knn.items():
            rows += scored.rows(KNN_LM, way, nll, against={"lm": scored.nll})
        return rows + self._cost_rows(KNN_LM, "", self.subject.knn_cost())

    def rows(self, component: Component) -> list[Row]:
        """Return the rows of one distribution, tuned on validation and, marked, on test."""
        lm = {split: self.subject.scored[split].nll for split in SPLITS}
        rows, scored = [], self.subject.scored[TEST]
        for way, split in WAYS.items():
            setting = f"{component.variant}/{way}" if component.variant else way
            chosen = best_mixture(component, split, lm[split], self.lmbdas)
            nll = mixed_nll(component, TEST, lm[TEST], chosen)
            names = scored.row_names(component.method, setting)
            tuned = {"lmbda": chosen.lmbda}
            if component.option:
                tuned[component.option] = component.values[chosen.place]
            rows += [
                {**names, "split": split, "metric": metric, "value": value, "n": len(lm[split])}
                | {"unit": "tuned"}
                for metric, value in tuned.items()
            ]
            against = {"lm": lm[TEST], KNN_LM: self.knn[way]}
            rows += scored.rows(component.method, setting, nll, against=against)
            rows.append(self._share_row(names, nll, self.knn[way]))
            if component.method == two_metrics.METHOD:  # it contains the kNN-LM
                rows.append(self._added_row(names, nll, way))
        return rows + self._cost_rows(component.method, component.variant, component.cost)

    def _share_row(
        self, names: Mapping[str, Any], nll: NDArray[np.float64], knn: NDArray[np.float64]
    ) -> Row:
        scored = self.subject.scored[TEST]
        nlls = (scored.nll, knn, nll)
        low, high = scored.text.bootstrap.of_means(share_of_gap, *nlls)
        share = float(share_of_gap(*(one.mean() for one in nlls)))
        row = {"metric": "share_of_knn_gain", "value": share, "ci_low": low, "ci_high": high}
        return {**names, **row, "n": len(nll), "unit": "share"}

    def _added_row(self, names: Mapping[str, Any], nll: NDArray[np.float64], way: str) -> Row:
        """Return what a mixture adds to the kNN-LM, less what kNN adds to the LM, paired."""
        scored, knn = self.subject.scored[TEST], self.knn[way]
        difference = (nll - knn) - (knn - scored.nll)
        return scored.text.mean_difference(names, difference, against="what_knn_adds")

    def _cost_rows(self, method: str, variant: str, cost: Cost) -> list[Row]:
        names = self.subject.scored[TEST].row_names(method, variant)
        return [
            {**names, "metric": ADDED, "value": cost.flops, "n": 1, "unit": "FLOPs"},
            {**names, "metric": "bytes_added", "value": cost.bytes, "n": 1, "unit": "bytes"},
        ]
