"""Whether the last layers of an LM can express the kNN-LM's distributions.

Chiang et al. (2024), Tables 1 (projections), 3 and 4: perplexity and KL of the nearest
distributions that the last layers can produce. Beside what the paper's optimizer reaches stand
where it starts, and the certified optimum: how much of the perplexity gap from the LM to the
kNN-LM is beyond the rank of the head, and how much is beyond the optimizer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import NO_INTERVAL, DocumentBootstrap, Interval
from knnlm.evidence.metrics import perplexity_per_token
from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.experiments.softmax_bottleneck.optima import OPTIMA, OWN, Unit, read_optima
from knnlm.experiments.softmax_bottleneck.problem import PUBLISHED, TUNED
from knnlm.experiments.softmax_bottleneck.scores import PER_QUERY, Arrays
from knnlm.experiments.softmax_bottleneck.walks import PROJECTIONS, START, Walk, read_walks
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.runtime.places import places

EXPERIMENT = "softmax_bottleneck"


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment, all on the sampled positions of test.

    Args:
        inputs: queries and neighbors of test, tuned points, projections and optima.
        settings: corpus, lm_seeds, baseline, datastores and softmax_bottleneck.

    Returns:
        `table`. `setting` is target/start/direction/optimizer, or target/optimum/head; `method`
        is lm, knn_lm or the map.

    Raises:
        ArtifactError: if folders belong to different queries or neighbors.
    """
    own = settings[EXPERIMENT]
    run = ScoredRun.of(EXPERIMENT, inputs, settings)
    projected = places(inputs["projections"], kind=PROJECTIONS, by=("seed", "last_layers"))
    solved = places(inputs["optima"], kind=OPTIMA, by=("seed",))
    rows: list[Row] = []
    for seed in run.seeds:
        folders = {name: projected[seed, name] for name in own["last_layers"]}
        retrieved = run.retrieved(run.scored(seed, positions=own["positions"]))
        _require_one_origin(retrieved, [solved[seed]], kind=OPTIMA)
        _require_one_origin(retrieved, folders.values(), kind=PROJECTIONS)
        of_seed = ProjectedSeed.of(retrieved, Point(**run.baseline["published"]))
        certified = read_optima(solved[seed], of_seed.scored.places)
        rows += of_seed.baseline_rows()
        rows += of_seed.optimum_rows(certified, tolerance=own["optimum"]["tolerance"])
        nearest = certified[Unit(TUNED, OWN)]["kl_p_f"]
        for name, folder in folders.items():
            walked = read_walks(folder, of_seed.scored.places)
            rows += of_seed.walk_rows(name, walked, nearest)
    return {"table": table_of(rows)}


def share_of_gap(
    lm: NDArray[np.float64] | float,
    knn: NDArray[np.float64] | float,
    projected: NDArray[np.float64] | float,
) -> NDArray[np.float64] | float:
    """Return the share of the perplexity gap LM -> kNN-LM that a projection recovers.

    0 is the LM, 1 the kNN-LM. It means something where the gap itself is above 0.

    Args:
        lm: mean nll of the LM, in nats; of one text, or (samples,) of its resamples.
        knn: the same of the kNN-LM.
        projected: the same of the projection.
    """
    return (np.exp(lm) - np.exp(projected)) / (np.exp(lm) - np.exp(knn))


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
    def of(cls, retrieved: Retrieved, published: Point) -> "ProjectedSeed":
        """Score the kNN-LM at the tuned point and at the published one."""
        scored = retrieved.scored
        knn = {TUNED: retrieved.nll, PUBLISHED: scored.knn_nll(retrieved.found, published)}
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
        yield self._perplexity(self.scored.row_names("lm"), lm)
        for target, nll in self.knn.items():
            names = self.scored.row_names(KNN_LM, target)
            yield self._perplexity(names, nll)
            gap = self.bootstrap.of_means(lambda lm, knn: np.exp(lm) - np.exp(knn), lm, nll)
            value = np.exp(lm.mean()) - np.exp(nll.mean())
            yield self._row(names, "perplexity_gap", value, gap, unit="perplexity")

    def optimum_rows(self, certified: Mapping[Unit, Arrays], *, tolerance: float) -> Iterator[Row]:
        """Yield the rows of every certified optimum: what a head can express."""
        for (target, head), found in certified.items():
            setting = f"{target}/optimum/{head}"
            names = self.scored.row_names("head", setting)
            yield from self._projected(names, found, target)
            norms = found["certificate"]
            extremes = {"min": norms.min(), "median": np.median(norms), "max": norms.max()}
            for name, value in extremes.items():
                yield self._row(names, f"gradient_norm_{name}", value, unit="relative")
            yield self._row(names, "certified", np.mean(norms <= tolerance), unit="share")
            yield self._row(names, "rank", int(found["rank"]), unit="dimensions")
            yield self._row(names, "evaluations", int(found["evaluations"]), unit="count")

    def walk_rows(
        self,
        last_layers: str,
        walked: Mapping[Walk, Arrays],
        nearest: NDArray[np.float64],
    ) -> Iterator[Row]:
        """Yield the rows of every walk of one map, and of the best that any of them reached.

        Args:
            last_layers: head, f or f_g.
            walked: what each walk reached.
            nearest: (n,), the certified least KL[p || f] of the LM's own head.
        """
        bounds = []
        for walk, found in walked.items():
            setting = f"{TUNED}/{walk.start}/{walk.direction}/{walk.optimizer}"
            names = self.scored.row_names(last_layers, setting)
            yield from self._projected(names, found, TUNED)
            for kl in ("kl_p_f", "kl_f_p"):
                yield self._mean(names, f"starting_{kl}", found[START + kl])
            yield self._mean(names, "kl_p_f_above_optimum", found["kl_p_f"] - nearest)
            yield self._row(names, "steps", len(found["kl_trace"]) - 1, unit="count")
            if walk.direction == "p||f":
                bounds.append(found)
        if last_layers != "head":
            names = self.scored.row_names(last_layers, f"{TUNED}/best")
            found = best_of(bounds)
            yield from self._projected(names, found, TUNED)
            yield self._mean(names, "kl_p_f_above_optimum", found["kl_p_f"] - nearest)

    def _projected(self, names: Mapping[str, Any], found: Arrays, target: str) -> Iterator[Row]:
        """Yield what every projection has: perplexity, share of the gap, both KLs."""
        nlls = (self.scored.nll, self.knn[target], found["nll"])
        yield self._perplexity(names, found["nll"])
        share = float(share_of_gap(*(nll.mean() for nll in nlls)))
        interval = self.bootstrap.of_means(share_of_gap, *nlls)
        yield self._row(names, "share_of_gap", share, interval, unit="share")
        for kl in ("kl_p_f", "kl_f_p"):
            yield self._mean(names, kl, found[kl])
        for name, baseline in {"lm": self.scored.nll, KNN_LM: self.knn[target]}.items():
            yield self._mean(names, f"nats_per_token_vs_{name}", found["nll"] - baseline)

    def _perplexity(self, names: Mapping[str, Any], nll: NDArray[np.float64]) -> Row:
        value, interval = perplexity_per_token(nll), self.bootstrap.of_means(np.exp, nll)
        return self._row(names, "perplexity_per_token", value, interval, unit="perplexity")

    def _mean(self, names: Mapping[str, Any], metric: str, values: NDArray[np.float64]) -> Row:
        interval = self.bootstrap.ratio(values)
        return self._row(names, metric, float(values.mean()), interval, unit="nats per token")

    def _row(
        self,
        names: Mapping[str, Any],
        metric: str,
        value: float,
        interval: Interval = NO_INTERVAL,
        *,
        unit: str,
    ) -> Row:
        ends = {"ci_low": interval.low, "ci_high": interval.high}
        row = {"metric": metric, "value": value, "n": len(self.scored.places), "unit": unit}
        return dict(names) | row | ends


def best_of(walked: Sequence[Arrays]) -> Arrays:
    """Return, for each query, what the walk with the least KL[p || f] reached.

    It is chosen by the KL that is minimized, not by the nll. As no walk is known to end in a
    minimum, the least KL of all z lies at or below it, no more is known.
    """
    chosen = np.argmin([found["kl_p_f"] for found in walked], axis=0)
    queries = np.arange(len(chosen))
    stacked = {name: np.stack([found[name] for found in walked]) for name in PER_QUERY}
    return {name: values[chosen, queries] for name, values in stacked.items()}


def _require_one_origin(retrieved: Retrieved, folders: Iterable[Path], *, kind: str) -> None:
    """Check that projections or optima are of the neighbors that are evaluated."""
    scored = identity(retrieved.scored.queries.folder, kind="queries")
    found = identity(retrieved.folder, kind="neighbors")
    for folder in folders:
        require_origin(folder, kind=kind, role="queries", expected=scored)
        require_origin(folder, kind=kind, role="neighbors", expected=found)
