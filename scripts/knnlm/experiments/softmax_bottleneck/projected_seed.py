"""What one LM seed's projections are held against, and the rows that every projection has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.intervals import NO_INTERVAL, DocumentBootstrap, Interval
from knnlm.evidence.metrics import perplexity_per_token, share_of_gap
from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.experiments.softmax_bottleneck.optima import Unit
from knnlm.experiments.softmax_bottleneck.problem import F, points_of
from knnlm.experiments.softmax_bottleneck.scores import Arrays


@dataclass(frozen=True)
class ProjectedSeed:
    """One LM seed: the sampled positions, and what LM and kNN-LM make of their targets.

    Attributes:
        scored: the sampled positions.
        knn: (n,) nll of the kNN-LM in nats, by target.
    """

    scored: ScoredSplit
    knn: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, retrieved: Retrieved, published: Mapping[str, Any]) -> "ProjectedSeed":
        """Score every kNN-LM that is projected.

        Args:
            retrieved: neighbors of the sampled positions, and the tuned point.
            published: k, temperature and lmbda of `baseline.published`.
        """
        scored, points = retrieved.scored, points_of(retrieved.tuned.point, published)
        knn = {name: scored.knn_nll(retrieved.found, point) for name, point in points.items()}
        return cls(scored, knn)

    @property
    def bootstrap(self) -> DocumentBootstrap:
        """Resampled documents of the sampled positions."""
        return self.scored.text.bootstrap

    def baseline_rows(self) -> Iterator[Row]:
        """Yield perplexities of LM and kNN-LM, the gap between them, and the sizes."""
        counts = {"positions": len(self.scored.places), "documents": self.bootstrap.n_documents}
        for metric, count in counts.items():
            names = self.scored.names
            yield {**names, "metric": metric, "value": count, "n": count, "unit": "count"}
        lm = self.scored.nll
        yield self.perplexity(self.scored.row_names("lm"), lm)
        for target, nll in self.knn.items():
            names = self.scored.row_names(KNN_LM, target)
            yield self.perplexity(names, nll)
            gap = self.bootstrap.of_means(lambda lm, knn: np.exp(lm) - np.exp(knn), lm, nll)
            value = np.exp(lm.mean()) - np.exp(nll.mean())
            yield self.row(names, "perplexity_gap", value, gap, unit="perplexity")

    def optimum_rows(self, certified: Mapping[Unit, Arrays], *, tolerance: float) -> Iterator[Row]:
        """Yield the rows of every certified optimum: what a head can express."""
        for (target, head), found in certified.items():
            setting = f"{target}/optimum/{head}"
            names = self.scored.row_names(F, setting)
            yield from self.projected(names, found, target)
            norms = found["certificate"]
            extremes = {"min": norms.min(), "median": np.median(norms), "max": norms.max()}
            for name, value in extremes.items():
                yield self.row(names, f"gradient_norm_{name}", value, unit="relative")
            yield self.row(names, "certified", np.mean(norms <= tolerance), unit="share")
            yield self.row(names, "rank", int(found["rank"]), unit="dimensions")
            yield self.row(names, "evaluations", int(found["evaluations"]), unit="count")

    def projected(self, names: Mapping[str, Any], found: Arrays, target: str) -> Iterator[Row]:
        """Yield what every projection has: perplexity, share of the gap, both KLs.

        Args:
            names: of its rows.
            found: nll of the targets and both KLs, (n,) in nats.
            target: the kNN-LM that was projected.
        """
        nlls = (self.scored.nll, self.knn[target], found["nll"])
        yield self.perplexity(names, found["nll"])
        share = float(share_of_gap(*(nll.mean() for nll in nlls)))
        interval = self.bootstrap.of_means(share_of_gap, *nlls)
        yield self.row(names, "share_of_gap", share, interval, unit="share")
        for kl in ("kl_p_f", "kl_f_p"):
            yield self.mean(names, kl, found[kl])
        for name, baseline in {"lm": self.scored.nll, KNN_LM: self.knn[target]}.items():
            yield self.mean(names, f"nats_per_token_vs_{name}", found["nll"] - baseline)

    def perplexity(self, names: Mapping[str, Any], nll: NDArray[np.float64]) -> Row:
        """Return the perplexity per token of an nll, (n,) in nats."""
        value, interval = perplexity_per_token(nll), self.bootstrap.of_means(np.exp, nll)
        return self.row(names, "perplexity_per_token", value, interval, unit="perplexity")

    def mean(self, names: Mapping[str, Any], metric: str, values: NDArray[np.float64]) -> Row:
        """Return the mean of (n,) nats; of a difference, position by position, it is paired."""
        interval = self.bootstrap.ratio(values)
        return self.row(names, metric, float(values.mean()), interval, unit="nats per token")

    def row(
        self,
        names: Mapping[str, Any],
        metric: str,
        value: float,
        interval: Interval = NO_INTERVAL,
        *,
        unit: str,
    ) -> Row:
        """Return a row on the sampled positions."""
        ends = {"ci_low": interval.low, "ci_high": interval.high}
        row = {"metric": metric, "value": value, "n": len(self.scored.places), "unit": unit}
        return dict(names) | row | ends
