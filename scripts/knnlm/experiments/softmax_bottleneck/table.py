"""Whether the last layers of an LM can express the kNN-LM's distributions.

Chiang et al. (2024), Tables 1 (projections), 3 and 4: perplexity and KL of the nearest
distributions that the last layers can produce. Beside what the paper's optimizer reaches stand
where it starts, and the certified optimum: how much of the perplexity gap from the LM to the
kNN-LM is beyond the rank of the head, and how much is beyond the optimizer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import NO_INTERVAL, DocumentBootstrap, Interval
from knnlm.evidence.metrics import perplexity_per_token
from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.shared.tuned_point import TUNED, tuned_point
from knnlm.experiments.softmax_bottleneck.optima import OPTIMA, OWN, Unit, read_optima
from knnlm.experiments.softmax_bottleneck.problem import PUBLISHED, spread
from knnlm.experiments.softmax_bottleneck.scores import PER_QUERY, Arrays
from knnlm.experiments.softmax_bottleneck.walks import PROJECTIONS, START, Walk, read_walks
from knnlm.lm.scoring import Queries, load_queries
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.tuning import Point, nll_at
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.runtime.seeds import numpy_generator

EXPERIMENT = "softmax_bottleneck"


def evaluate_softmax_bottleneck(
    *,
    corpus: str,
    model: str,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    knn: Mapping[str, Any],
    knn_table: pd.DataFrame,
    queries: Sequence[Path],
    neighbors: Sequence[Path],
    projections: Sequence[Path],
    optima: Sequence[Path],
) -> pd.DataFrame:
    """Return the table of the experiment, all on the sampled positions of test.

    Args:
        corpus: its name.
        model: name of the LM.
        seeds: the LM seeds.
        settings: the block `softmax_bottleneck` of the config.
        knn: the block `knn_perplexity`.
        knn_table: its table, with k, temperature and lmbda.
        queries: of test, for each seed.
        neighbors: of test, for each seed.
        projections: for each seed and each of settings["last_layers"].
        optima: for each seed.

    Returns:
        A tidy table. `setting` is target/start/direction/optimizer, or target/optimum/head;
        `method` is lm, knn_lm or the map.

    Raises:
        ArtifactError: if folders belong to different queries or neighbors.
    """
    last_layers = settings["last_layers"]
    projected = dict(zip(product(seeds, last_layers), projections, strict=True))
    rows: list[Row] = []
    for seed, scored, found, solved in zip(seeds, queries, neighbors, optima, strict=True):
        folders = {name: projected[seed, name] for name in last_layers}
        made = dict.fromkeys(folders.values(), PROJECTIONS) | {solved: OPTIMA}
        _require_one_origin(scored, found, made)
        points = {
            TUNED: tuned_point(knn_table, index=knn["index"], seed=seed),
            PUBLISHED: Point(**knn["published"]),
        }
        names = {"experiment": EXPERIMENT, "corpus": corpus, "model": model, "seed": seed}
        run = Run.of(
            {**names, "split": "test"},
            load_queries(scored),
            found,
            points,
            positions=settings["positions"],
            bootstrap=knn["bootstrap"],
        )
        certified = read_optima(solved, run.places)
        rows += run.baseline_rows()
        rows += run.optimum_rows(certified, tolerance=settings["optimum"]["tolerance"])
        nearest = certified[Unit(TUNED, OWN)]["kl_p_f"]
        for name, folder in folders.items():
            rows += run.walk_rows(name, read_walks(folder, run.places), nearest)
    table = tidy(rows)
    return pd.concat([table, means_over_seeds(table)], ignore_index=True)


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
class Run:
    """One LM seed: the sampled positions, and what LM and kNN-LM make of their targets.

    Attributes:
        names: of its rows.
        places: (n,), the sampled queries.
        bootstrap: over their documents.
        lm: (n,) nll in nats.
        knn: (n,) nll in nats, by target.
    """

    names: Mapping[str, Any]
    places: NDArray[np.int64]
    bootstrap: DocumentBootstrap
    lm: NDArray[np.float64]
    knn: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls,
        names: Mapping[str, Any],
        queries: Queries,
        neighbors: Path,
        points: Mapping[str, Point],
        *,
        positions: int,
        bootstrap: Mapping[str, int],
    ) -> "Run":
        """Score LM and kNN-LM on the sampled positions."""
        places = spread(queries.n_queries, positions=positions)
        found, lm = load_neighbors(neighbors), queries.lm_log_probs[places]
        arrays = (found.distances[places], found.values[places], queries.targets[places], lm)
        generator = numpy_generator(bootstrap["seed"], "bootstrap", "documents")
        documents = DocumentBootstrap(
            queries.documents[places], samples=bootstrap["samples"], generator=generator
        )
        knn = {target: nll_at(point, *arrays) for target, point in points.items()}
        return cls(names, places, documents, -lm, knn)

    def baseline_rows(self) -> Iterator[Row]:
        """Yield perplexities of LM and kNN-LM, the gap between them, and the sizes."""
        counts = {"positions": len(self.places), "documents": self.bootstrap.n_documents}
        for metric, count in counts.items():
            yield {**self.names, "metric": metric, "value": count, "n": count, "unit": "count"}
        yield self._perplexity({**self.names, "method": "lm"}, self.lm)
        for target, nll in self.knn.items():
            names = {**self.names, "method": "knn_lm", "setting": target}
            yield self._perplexity(names, nll)
            gap = self.bootstrap.of_means(lambda lm, knn: np.exp(lm) - np.exp(knn), self.lm, nll)
            value = np.exp(self.lm.mean()) - np.exp(nll.mean())
            yield self._row(names, "perplexity_gap", value, gap, unit="perplexity")

    def optimum_rows(self, certified: Mapping[Unit, Arrays], *, tolerance: float) -> Iterator[Row]:
        """Yield the rows of every certified optimum: what a head can express."""
        for (target, head), found in certified.items():
            setting = f"{target}/optimum/{head}"
            names = {**self.names, "method": "head", "setting": setting}
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
            names = {**self.names, "method": last_layers, "setting": setting}
            yield from self._projected(names, found, TUNED)
            for kl in ("kl_p_f", "kl_f_p"):
                yield self._mean(names, f"starting_{kl}", found[START + kl])
            yield self._mean(names, "kl_p_f_above_optimum", found["kl_p_f"] - nearest)
            yield self._row(names, "steps", len(found["kl_trace"]) - 1, unit="count")
            if walk.direction == "p||f":
                bounds.append(found)
        if last_layers != "head":
            names = {**self.names, "method": last_layers, "setting": f"{TUNED}/best"}
            found = best_of(bounds)
            yield from self._projected(names, found, TUNED)
            yield self._mean(names, "kl_p_f_above_optimum", found["kl_p_f"] - nearest)

    def _projected(self, names: Mapping[str, Any], found: Arrays, target: str) -> Iterator[Row]:
        """Yield what every projection has: perplexity, share of the gap, both KLs."""
        nlls = (self.lm, self.knn[target], found["nll"])
        yield self._perplexity(names, found["nll"])
        share = float(share_of_gap(*(nll.mean() for nll in nlls)))
        interval = self.bootstrap.of_means(share_of_gap, *nlls)
        yield self._row(names, "share_of_gap", share, interval, unit="share")
        for kl in ("kl_p_f", "kl_f_p"):
            yield self._mean(names, kl, found[kl])
        for name, baseline in {"lm": self.lm, "knn_lm": self.knn[target]}.items():
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
        row = {"metric": metric, "value": value, "n": len(self.places), "unit": unit}
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


def _require_one_origin(queries: Path, neighbors: Path, made: Mapping[Path, str]) -> None:
    """Check that neighbors, projections and optima are all of the same queries."""
    scored = identity(queries, kind="queries")
    require_origin(neighbors, kind="neighbors", role="queries", expected=scored)
    found = identity(neighbors, kind="neighbors")
    for folder, kind in made.items():
        require_origin(folder, kind=kind, role="queries", expected=scored)
        require_origin(folder, kind=kind, role="neighbors", expected=found)
