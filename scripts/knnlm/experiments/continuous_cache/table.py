"""Whether a cache of the recent past of a document adds to the LM, and to retrieval.

Khandelwal et al. (2020), Table 1, rows 3 and 5, with the cache of Grave et al. (2017). Beside it
the control: the same LM with as much left context as it has room for, and no cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import tidy
from knnlm.experiments.continuous_cache.documents import (
    CONTROL,
    KIND,
    MORE_CONTEXT,
    open_part,
    rows_of,
)
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.mixed import SPLITS, BySplit, MixedSeed, Mixture
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM
from knnlm.lm.architecture import OUTPUT_AFTER
from knnlm.lm.scoring import Queries
from knnlm.retrieval.cache import CacheTuning, cache_log_probs, mean_squared_norm, tune_cache
from knnlm.retrieval.mixture import mix_parts
from knnlm.runtime.artifacts import read_manifest, require_origin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.places import places

CACHE, KNN_CACHE = "cache", "knn_lm_cache"  # methods in tables
WITHOUT = {CACHE: "lm", KNN_CACHE: KNN_LM}
COORDINATES = ("size", "theta")  # of the grid; theta is relative


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment, and perplexity on validation by size and theta.

    Args:
        inputs: documents; queries of the baseline's LM, neighbors and tuned points.
        settings: continuous_cache, corpus, lm_seeds, baseline and datastores.

    Raises:
        ArtifactError: if folders belong to different models or texts.
    """
    run = ScoredRun.of("continuous_cache", inputs, settings)
    documents = places(inputs["documents"], kind=KIND, by=("model", "seed"))
    block, rows, grid = settings["continuous_cache"], [], []
    for seed in run.seeds:
        LOGGER.info("seed %s", seed)
        cached = CachedSeed.of(MixedSeed.of(run, seed), documents[run.model, seed], block)
        rows += cached.rows()
        grid += cached.grid_rows()
    return {"table": table_of(rows), "grid": tidy(grid, coordinates=COORDINATES)}


@dataclass(frozen=True)
class CachedSeed:
    """One LM seed with whole documents.

    Attributes:
        mixed: what its LM scored, and the neighbors.
        whole: every position of each split.
        more_context: the queries of test, scored by the same LM with more left context.
        left_context: the least tokens that LM and control see to the left, by method.
        thetas: relative to 1 over `unit`.
        sizes: of the caches.
        unit: the mean squared norm of the states of validation.
    """

    mixed: MixedSeed
    whole: Mapping[str, Queries]
    more_context: Queries
    left_context: Mapping[str, int]
    thetas: NDArray[np.float64]
    sizes: Sequence[int]
    unit: float

    @classmethod
    def of(cls, mixed: MixedSeed, folder: Path, block: Mapping[str, Any]) -> "CachedSeed":
        """Open the documents of a seed, and check that its LM scored the same text."""
        for scored in mixed.scored.values():
            made_from = read_manifest(scored.queries.folder, kind="queries")["made_from"]
            for role in ("model", "tokens"):
                require_origin(folder, kind=KIND, role=role, expected=made_from[role])
        whole = {split: open_part(folder, split) for split in SPLITS}
        low, high, count = (block["thetas"][name] for name in ("low", "high", "count"))
        return cls(
            mixed,
            whole,
            open_part(folder, CONTROL),
            read_manifest(folder, kind=KIND)["contents"]["left_context"],
            np.geomspace(low, high, count),
            sorted(block["sizes"]),
            mean_squared_norm(whole["validation"].hidden(OUTPUT_AFTER)),
        )

    def cache(self, split: str, places: tuple[slice, slice]) -> NDArray[np.float64]:
        """Return log p_cache of the targets of a split, for some thetas and sizes of the grid."""
        whole, scored = self.whole[split], self.mixed.scored[split]
        return cache_log_probs(
            np.asarray(whole.hidden(OUTPUT_AFTER)),
            whole.targets,
            whole.documents,
            rows_of(whole, scored.queries.positions[scored.places]),
            thetas=self.thetas[places[0]] / self.unit,
            sizes=self.sizes[places[1]],
        )

    @cached_property
    def on_validation(self) -> NDArray[np.float64]:
        """What every cache says of the targets of validation, (n_thetas, n_sizes, n) in nats."""
        return self.cache("validation", (slice(None), slice(None)))

    @cached_property
    def tunings(self) -> dict[str, CacheTuning]:
        """What is mixed with a cache, at every theta and size, by method."""
        return {
            method: tune_cache(_stacked(parts, "validation"), self.on_validation)
            for method, parts in self._others.items()
        }

    @property
    def _others(self) -> dict[str, dict[str, BySplit]]:
        return {CACHE: self.mixed.lm, KNN_CACHE: self.mixed.lm_and_knn}

    def rows(self) -> list[Row]:
        """Return the rows of LM, control, kNN-LM, and of both with a cache."""
        test = self.mixed.scored["test"]
        control = replace(test, queries=self.more_context)
        test.require_paired(control)
        rows = self.mixed.baseline_rows()
        against = self.mixed.baselines("test")
        rows += test.rows(MORE_CONTEXT, "", control.nll, against=against)
        for method, tokens in self.left_context.items():
            counted = {"metric": "least_left_context", "value": tokens, "unit": "tokens"}
            rows.append(test.row_names(method, "") | counted | {"n": len(test.places)})
        mixtures: dict[str, Mixture] = {}
        for method, tuning in self.tunings.items():
            theta, size = tuning.best
            at = (slice(theta, theta + 1), slice(size, size + 1))
            tuned = {
                "validation": self.on_validation[theta, size],
                "test": self.cache("test", at)[0, 0],
            }
            mixture = Mixture({**self._others[method], CACHE: tuned})
            rows += self.mixed.rows(method, "tuned", mixture, against=mixtures)
            rows += self._tuned_rows(method, theta, size)
            names = test.row_names(method, "tuned")
            rows += test.text.differences(
                names, mixture.nll("test"), control.nll, against=MORE_CONTEXT
            )
            mixtures[method] = mixture
        return rows

    def _tuned_rows(self, method: str, theta: int, size: int) -> list[Row]:
        scored = self.mixed.scored["validation"]
        relative = float(self.thetas[theta])
        chosen = {
            ("cache_size", "positions"): self.sizes[size],
            ("theta_relative", "1 / mean squared norm"): relative,
            ("theta", "1 / squared norm"): relative / self.unit,
        }
        names = scored.row_names(method, "tuned") | {"n": len(scored.places)}
        return [
            names | {"metric": metric, "value": value, "unit": unit}
            for (metric, unit), value in chosen.items()
        ]

    def grid_rows(self) -> list[Row]:
        """Return perplexity on validation over size and over theta, the other the best for each.

        Behind each stands its change against the same without a cache.
        """
        scored = self.mixed.scored["validation"]
        baselines, rows = self.mixed.baselines("validation"), []
        for method, tuning in self.tunings.items():
            others = _stacked(self._others[method], "validation")
            for setting, theta, size in _curves(tuning):
                parts = np.vstack([others, self.on_validation[theta, size]])
                nll = -mix_parts(parts, tuning.weights[theta, size])
                names = scored.row_names(method, setting)
                at = {"size": self.sizes[size], "theta": float(self.thetas[theta])}
                level = scored.text.perplexities(names, nll)[0]
                against = WITHOUT[method]
                change = scored.text.differences(names, nll, baselines[against], against=against)
                rows += [level | at, change[1] | at]
        return rows


def _curves(tuning: CacheTuning) -> list[tuple[str, int, int]]:
    """Return the tuned places of theta and size, and those along which one of them varies."""
    best_thetas, best_sizes = tuning.nll.argmin(axis=0), tuning.nll.argmin(axis=1)
    over_size = [("over size", int(theta), size) for size, theta in enumerate(best_thetas)]
    over_theta = [("over theta", theta, int(size)) for theta, size in enumerate(best_sizes)]
    return [("tuned", *tuning.best), *over_size, *over_theta]


def _stacked(parts: Mapping[str, BySplit], split: str) -> NDArray[np.float64]:
    return np.stack([part[split] for part in parts.values()])
