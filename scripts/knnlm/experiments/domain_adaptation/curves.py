"""Perplexity on validation along lmbda, and the lmbda at which it is least, with its interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved
from knnlm.retrieval.interpolation import mix_log_probs


class Curve(NamedTuple):
    """The kNN-LM of one domain at its tuned k and temperature.

    Attributes:
        domain: the setting of its rows.
        retrieved: neighbors of validation.
    """

    domain: str
    retrieved: Retrieved

    def nlls(self) -> list[NDArray[np.float64]]:
        """Return the nll (n,), in nats, at each lmbda of the grid."""
        lm, knn = -self.retrieved.scored.nll, self.retrieved.knn_log_probs
        return [-mix_log_probs(lm, knn, lmbda) for lmbda in self.lmbdas]

    @property
    def lmbdas(self) -> Sequence[float]:
        """The grid."""
        return self.retrieved.tuned.grid["lmbdas"]

    def rows(self) -> list[Row]:
        """Return the perplexity at each lmbda, and at 0 that of the LM."""
        scored = self.retrieved.scored
        names = scored.row_names(KNN_LM, f"{self.domain}/over lmbda")
        points = zip([0.0, *self.lmbdas], [scored.nll, *self.nlls()], strict=True)
        return [scored.text.perplexities(names, nll)[0] | {"lmbda": at} for at, nll in points]

    def best(self) -> Row:
        """Return the best lmbda, with the interval of the best of resampled documents."""
        scored, nlls, grid = self.retrieved.scored, self.nlls(), np.asarray(self.lmbdas)

        def least(*means: NDArray[np.float64]) -> NDArray[np.float64]:
            return grid[np.argmin(np.stack(means), axis=0)]

        interval = scored.text.bootstrap.of_means(least, *nlls)
        ends = {"ci_low": interval.low, "ci_high": interval.high}
        value = float(least(*(np.atleast_1d(nll.mean()) for nll in nlls))[0])
        names = scored.row_names(KNN_LM, self.domain) | {"metric": "best_lmbda"}
        return names | ends | {"value": value, "n": len(scored.places), "unit": "weight on kNN"}
