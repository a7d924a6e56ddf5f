"""The curves of knn_perplexity: perplexity on validation along k, temperature and lmbda.

Along each curve one setting varies and the two others stay at their tuned values. Intervals come
from resampled documents of validation; the tuned point is the least of the same tokens, so they
say how a level moves with the documents, not what tuning on them costs.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.metrics import perplexity_per_token
from knnlm.evidence.scored_text import Row
from knnlm.lm.scoring import Queries
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.neighbors import Neighbors
from knnlm.retrieval.tuning import Tuning
from knnlm.runtime.seeds import numpy_generator

COORDINATES = ("k", "temperature", "lmbda")
Place = tuple[int, int, int]  # of a point in the grid, by coordinate


@dataclass(frozen=True)
class Validation:
    """The validation split as one LM scored it, and its resampled documents."""

    lm: Queries
    bootstrap: DocumentBootstrap

    @classmethod
    def of(cls, lm: Queries, bootstrap: Mapping[str, int]) -> "Validation":
        """Draw the resamples: the same for every LM that scored these tokens."""
        generator = numpy_generator(bootstrap["seed"], "bootstrap", "validation documents")
        samples = bootstrap["samples"]
        return cls(lm, DocumentBootstrap(lm.documents, samples=samples, generator=generator))

    def level(self, names: Mapping[str, Any], nll: NDArray[np.float64]) -> Row:
        """Return the perplexity per token of a method, from the nll of each token."""
        low, high = np.exp(self.bootstrap.ratio(nll))
        return dict(names) | {
            **{"split": "validation", "metric": "perplexity_per_token", "unit": "perplexity"},
            **{"value": perplexity_per_token(nll), "ci_low": low, "ci_high": high, "n": len(nll)},
        }

    def curves(
        self, names: Mapping[str, Any], index: str, tuning: Tuning, found: Neighbors
    ) -> list[Row]:
        """Return the points of the curves through the best point of a grid, and that point.

        Args:
            names: the names of the rows of the kNN-LM.
            index: its name, the first part of `setting`.
            tuning: the grid.
            found: the neighbors that it was scored on.
        """
        axes = (tuning.ks, tuning.temperatures, tuning.lmbdas)

        @functools.cache  # along lmbda all points mix the same probabilities
        def knn(k: int, temperature: int) -> NDArray[np.float64]:
            nearest = slice(0, tuning.ks[k])
            return knn_log_probs(
                found.distances[:, nearest],
                found.values[:, nearest],
                self.lm.targets,
                temperature=float(tuning.temperatures[temperature] * tuning.distance),
            )

        rows = []
        for setting, place in _places(tuning):
            nll = -mix_log_probs(self.lm.lm_log_probs, knn(*place[:2]), axes[2][place[2]])
            row = self.level({**names, "setting": f"{index}/{setting}"}, nll)
            rows.append(row | {name: axes[i][place[i]] for i, name in enumerate(COORDINATES)})
        return rows


def _places(tuning: Tuning) -> Iterator[tuple[str, Place]]:
    """Yield the best point of a grid, and all that differ from it in one coordinate."""
    yield "tuned", tuning.best
    for axis, varied in enumerate(COORDINATES):
        for i in range(tuning.nll.shape[axis]):
            yield f"over {varied}", (*tuning.best[:axis], i, *tuning.best[axis + 1 :])
