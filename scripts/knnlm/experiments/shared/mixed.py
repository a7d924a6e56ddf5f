"""What is mixed with an LM, and perhaps its neighbors, at the weights that validation chose."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.retrieval.mixture import best_weights, mix_parts

SPLITS = ("validation", "test")
LM, KNN = "lm", "knn"  # names of parts

BySplit = Mapping[str, NDArray[np.float64]]  # (n,) of each split, nats


@dataclass(frozen=True)
class Mixture:
    """Distributions that are mixed.

    Attributes:
        parts: the log-probabilities of the targets by each part, by its name; the LM first.
    """

    parts: Mapping[str, BySplit]

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """The weight of each part that makes validation likeliest, (n_parts,)."""
        return best_weights(self._of("validation"))

    def nll(self, split: str) -> NDArray[np.float64]:
        """Return the nll of the mixture, (n,) in nats."""
        return -mix_parts(self._of(split), self.weights)

    def _of(self, split: str) -> NDArray[np.float64]:
        return np.stack([part[split] for part in self.parts.values()])


@dataclass(frozen=True)
class MixedSeed:
    """One LM seed on both splits: what the LM scored and what its neighbors say.

    Attributes:
        scored: by split.
        retrieved: by split, at the baseline's tuned point.
        setting: of the kNN-LM in tables.
    """

    scored: Mapping[str, ScoredSplit]
    retrieved: Mapping[str, Retrieved]
    setting: str

    @classmethod
    def of(cls, run: ScoredRun, seed: int) -> "MixedSeed":
        """Open what the baseline's LM of a seed scored, and its neighbors."""
        scored = {split: run.scored(seed, split) for split in SPLITS}
        retrieved = {split: run.retrieved(found) for split, found in scored.items()}
        return cls(scored, retrieved, f"{run.baseline['index']}/tuned")

    @cached_property
    def lm(self) -> dict[str, BySplit]:
        """The LM as the first part of a mixture."""
        return {LM: {split: -scored.nll for split, scored in self.scored.items()}}

    @cached_property
    def lm_and_knn(self) -> dict[str, BySplit]:
        """The LM and its neighbors, at the tuned k and temperature, as parts of a mixture."""
        return self.lm | {KNN: {split: r.knn_log_probs for split, r in self.retrieved.items()}}

    def baselines(self, split: str) -> dict[str, NDArray[np.float64]]:
        """Return the nll (n,) of the LM and of the tuned kNN-LM."""
        return {"lm": self.scored[split].nll, KNN_LM: self.retrieved[split].nll}

    def baseline_rows(self) -> list[Row]:
        """Return the rows of LM and kNN-LM on both splits, and how the kNN-LM was tuned."""
        rows = self.retrieved["test"].tuned_rows(self.setting)
        for split in SPLITS:
            nlls = self.baselines(split)
            for method, setting in {"lm": "", KNN_LM: self.setting}.items():
                rows += self.scored[split].rows(method, setting, nlls[method], against=nlls)
        return rows

    def rows(
        self,
        method: str,
        setting: str,
        mixture: Mixture,
        *,
        against: Mapping[str, Mixture] | None = None,
    ) -> list[Row]:
        """Return the weights of a mixture, and its rows on both splits.

        Args:
            method: its name.
            setting: of which n-grams, cache or the like.
            mixture: of the LM and others.
            against: other mixtures that it is compared with beside LM and kNN-LM.
        """
        names = self.scored["validation"].row_names(method, setting)
        n = len(self.scored["validation"].places)
        rows = [
            {**names, "metric": f"weight_on_{part}", "value": weight, "n": n, "unit": "weight"}
            for part, weight in zip(mixture.parts, mixture.weights, strict=True)
        ]
        for split, scored in self.scored.items():
            rivals = self.baselines(split)
            rivals |= {name: other.nll(split) for name, other in (against or {}).items()}
            rows += scored.rows(method, setting, mixture.nll(split), against=rivals)
        return rows
