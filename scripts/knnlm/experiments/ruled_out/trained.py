"""Whether another training explains kNN: mixture of softmaxes, soft labels, interpolated loss.

Xu et al. (2023), appendices: if kNN helped because one softmax has too low a rank, because its
labels are soft, or because the LM is not trained for the mixture, then an LM with more softmaxes,
one that learns from the LM's or the kNN-LM's distributions, or one that is trained for the mixture
should be as good. The control is trained as usual on as many tokens, and teaches: it is their LM,
and its kNN-LM their kNN-LM. Each is compared with both, alone and mixed with the control's kNN; and
it is mixed with the LM of the run in the place of kNN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.ruled_out.component import (
    NO_OPTION,
    SPLITS,
    TEST,
    VALIDATION,
    Component,
    Cost,
    best_mixture,
    mixed_nll,
)
from knnlm.experiments.ruled_out.subject import Subject
from knnlm.experiments.shared.cost import flops_of_model
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.lm.model import load_model
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mixture_weight import best_lmbda
from knnlm.retrieval.tuning import lmbdas_of
from knnlm.runtime.places import Places

CONTROL = "control"  # the method's name of the LM that is trained as usual
ALONE, WITH_KNN, OF_CONTROL = "alone", "with kNN", "of the control"

Nll = NDArray[np.float64]  # (n,) nats, of the targets of a split


@dataclass(frozen=True)
class TrainedLMs:
    """LMs that are trained another way, and their control, on the positions of the subject.

    Attributes:
        subject: the LM that learned longer, and its kNN-LM.
        scored: what each scored, by method and split; the control is among them.
        retrieved: the kNN-LM of the control, by split.
        costs: of each as a second LM, by method.
        grid: of the baseline, with the weights that are tried.
    """

    subject: Subject
    scored: Mapping[str, Mapping[str, ScoredSplit]]
    retrieved: Mapping[str, Retrieved]
    costs: Mapping[str, Cost]
    grid: Mapping[str, Any]

    @classmethod
    def of(
        cls, subject: Subject, run: ScoredRun, settings: Mapping[str, Any], models: Places
    ) -> "TrainedLMs":
        """Gather what the LMs scored.

        Args:
            subject: of the LM seed that they were trained with.
            run: with their queries, and the kNN-LM of the control.
            settings: of `ruled_out.trained`.
            models: their folders, by model and seed.

        Raises:
            ArtifactError: if one scored other positions than the subject.
        """
        names, scored, costs = {CONTROL: settings["control"], **settings["lms"]}, {}, {}
        for method, model in names.items():
            scored[method] = {s: run.scored(subject.seed, s, model=model) for s in SPLITS}
            for split, one in scored[method].items():
                subject.scored[split].require_paired(one)
            network = load_model(models[model, subject.seed])
            size = sum(one.numel() * one.element_size() for one in network.parameters())
            costs[method] = Cost(flops_of_model(network).query, float(size))
        retrieved = {
            split: run.retrieved(one, datastore=settings["control"])
            for split, one in scored[CONTROL].items()
        }
        return cls(subject, scored, retrieved, costs, run.baseline["grid"])

    def components(self) -> list[Component]:
        """Return each as a distribution in the place of kNN's."""
        return [
            Component(
                method,
                "",
                NO_OPTION,
                np.zeros(1),
                {split: -one.nll[None] for split, one in scored.items()},
                self.costs[method],
            )
            for method, scored in self.scored.items()
        ]

    def rows(self) -> list[Row]:
        """Return each alone and with kNN, against the control; and the control with its own kNN."""
        test, control = self.subject.scored[TEST], self.scored[CONTROL][TEST].nll
        knn = self.retrieved[TEST].nll
        against = {"control": control, "control_knn_lm": knn}
        rows = test.rows(KNN_LM, OF_CONTROL, knn, against={"control": control})
        for method, scored in self.scored.items():
            nll, rivals = scored[TEST].nll, dict(against)
            if method == CONTROL:
                del rivals["control"]
            rows += test.rows(method, ALONE, nll, against={"lm": test.nll, **rivals})
        return rows + self._with_knn_rows() + self._beside_control_rows()

    def _with_knn_rows(self) -> list[Row]:
        """Return each mixed with kNN of the control, the weight tuned on validation."""
        lmbdas = lmbdas_of(self.grid)
        knn = {split: self.retrieved[split].knn_log_probs for split in SPLITS}
        test, rows, nlls = self.subject.scored[TEST], list[Row](), dict[str, Nll]()
        for method, scored in self.scored.items():
            lmbda = best_lmbda(-scored[VALIDATION].nll, knn[VALIDATION], lmbdas)
            nlls[method] = -mix_log_probs(-scored[TEST].nll, knn[TEST], lmbda)
            tuned = {"split": VALIDATION, "metric": "lmbda", "value": lmbda, "unit": "tuned"}
            n = len(scored[VALIDATION].places)
            rows.append(test.row_names(method, WITH_KNN) | tuned | {"n": n})
            against = {"control_knn_lm": self.retrieved[TEST].nll}
            against |= {} if method == CONTROL else {"control": nlls[CONTROL]}
            rows += test.rows(method, WITH_KNN, nlls[method], against=against)
        return rows

    def _beside_control_rows(self) -> list[Row]:
        """Return what each, mixed with the LM, adds to the control in its place, paired."""
        lm = {split: self.subject.scored[split].nll for split in SPLITS}
        mixed = {}
        for one in self.components():
            chosen = best_mixture(one, VALIDATION, lm[VALIDATION], lmbdas_of(self.grid))
            mixed[one.method] = mixed_nll(one, TEST, lm[TEST], chosen)
        test = self.subject.scored[TEST]
        return [
            row
            for method, nll in mixed.items()
            if method != CONTROL
            for row in test.text.differences(
                test.row_names(method, "tuned"), nll, mixed[CONTROL], against="control_mixed"
            )
        ]
