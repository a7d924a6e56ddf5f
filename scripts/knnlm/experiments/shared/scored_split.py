"""What an LM scored, what a kNN-LM makes of it, and the rows that compare methods on it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.scored_text import Row, ScoredText
from knnlm.lm.scoring import Queries
from knnlm.retrieval.interpolation import knn_log_probs
from knnlm.retrieval.neighbors import Neighbors, load_neighbors
from knnlm.retrieval.sampling import entries_of
from knnlm.retrieval.tuning import Point, Tuned, nll_at
from knnlm.runtime.artifacts import (
    ArtifactError,
    identity,
    read_manifest,
    rebuild_hint,
    require_origin,
)
from knnlm.runtime.seeds import numpy_generator

KNN_LM = "knn_lm"  # the method's name in tables
# Of temperatures, by metric: absolute and relative. The spread is the largest less the mean.
UNITS = {
    "l2": ("squared distance", "mean squared distance"),
    "ip": ("inner product", "mean spread"),
}


@dataclass(frozen=True)
class ScoredSplit:
    """Positions of one split as one LM scored them.

    Attributes:
        names: of its rows: experiment, corpus, model, seed and split.
        queries: all positions that the LM scored.
        places: (n,), those among them that count.
        bootstrap: `samples` and `seed`.
    """

    names: Mapping[str, Any]
    queries: Queries
    places: NDArray[np.int64]
    bootstrap: Mapping[str, int]

    @cached_property
    def targets(self) -> NDArray[np.int32]:
        """The tokens that did follow, (n,)."""
        return self.queries.targets[self.places]

    @cached_property
    def nll(self) -> NDArray[np.float64]:
        """The nll of the LM, (n,) in nats."""
        return -self.queries.lm_log_probs[self.places]

    @cached_property
    def text(self) -> ScoredText:
        """Words, lines and resampled documents, the same for all LMs that scored these tokens."""
        split, places = self.names["split"], self.places
        purpose = "documents" if split == "test" else f"{split} documents"
        documents = DocumentBootstrap(
            self.queries.documents[places],
            samples=self.bootstrap["samples"],
            generator=numpy_generator(self.bootstrap["seed"], "bootstrap", purpose),
        )
        return ScoredText(self.queries.words[places], self.queries.lines[places], documents)

    def row_names(self, method: str, setting: str = "") -> dict[str, Any]:
        """Return the names of the rows of a method."""
        return {**self.names, "method": method, "setting": setting}

    def rows(
        self,
        method: str,
        setting: str,
        nll: NDArray[np.float64],
        *,
        against: Mapping[str, NDArray[np.float64]],
    ) -> list[Row]:
        """Return the perplexities of a method, and its paired difference to each baseline.

        Args:
            method: its name.
            setting: under which it ran.
            nll: (n,), nats.
            against: (n,) nats of each baseline, by name. What has the name of the method, or is
                its own `nll`, is left out.
        """
        names = self.row_names(method, setting)
        rows = self.text.perplexities(names, nll)
        for name, baseline in against.items():
            if name != method and baseline is not nll:
                rows += self.text.differences(names, nll, baseline, against=name)
        return rows

    def neighbors(self, folder: Path, *, rough: bool = False) -> Neighbors:
        """Return stored neighbors of these positions, if asked with their distances by codes.

        Raises:
            ArtifactError: naming the folder, if it has neighbors of others.
        """
        scored = identity(self.queries.folder, kind="queries")
        require_origin(folder, kind="neighbors", role="queries", expected=scored)
        found = load_neighbors(folder, rough=rough)
        if np.array_equal(found.places, self.places):
            return found
        if not np.isin(self.places, found.places).all():
            raise ArtifactError(
                f"expected {folder} to have neighbors of {len(self.places):,} positions, it lacks "
                f"some of them; {rebuild_hint(folder)}"
            )
        rows = np.searchsorted(found.places, self.places)
        stored = ("ids", "distances", "values", *(["rough"] if rough else []))
        arrays = {name: getattr(found, name)[rows] for name in stored}
        return replace(found, **arrays, places=self.places)

    def knn_nll(self, found: Neighbors, point: Point) -> NDArray[np.float64]:
        """Return the nll of the kNN-LM, (n,) in nats, from neighbors of these positions."""
        return nll_at(point, found.distances, found.values, self.targets, -self.nll)

    def require_paired(self, other: "ScoredSplit") -> None:
        """Check that another LM scored the same tokens, so that differences are paired.

        Raises:
            ArtifactError: naming the folder of the other.
        """
        for name in ("positions", "targets"):
            ours, theirs = (getattr(split.queries, name) for split in (self, other))
            if not np.array_equal(ours[self.places], theirs[other.places]):
                raise ArtifactError(
                    f"expected {other.queries.folder} to score the same {name} as "
                    f"{self.queries.folder}; {rebuild_hint(other.queries.folder)}"
                )


@dataclass(frozen=True)
class Retrieved:
    """What an index found for scored positions, and how its kNN-LM was tuned.

    Attributes:
        scored: the positions.
        folder: of the neighbors.
        tuned: k, temperature and lmbda that validation chose.
    """

    scored: ScoredSplit
    folder: Path
    tuned: Tuned

    @cached_property
    def found(self) -> Neighbors:
        """The neighbors of the positions."""
        return self.scored.neighbors(self.folder)

    @property
    def searched(self) -> dict[str, Any]:
        """What the manifest tells of the search: recall, and on how many queries."""
        return read_manifest(self.folder, kind="neighbors")["contents"]

    @property
    def n_entries(self) -> int:
        """The number of entries of the datastore."""
        return len(entries_of(self.searched))

    @cached_property
    def knn_log_probs(self) -> NDArray[np.float64]:
        """The log-probability of the targets by the neighbors alone, as tuned, (n,) in nats."""
        return self.knn_log_probs_at(self.tuned.point)

    def knn_log_probs_at(self, point: Point) -> NDArray[np.float64]:
        """Return it, (n,) in nats, at the k and temperature of a point; NaN without neighbors."""
        distances, values = self.found.distances[:, : point.k], self.found.values[:, : point.k]
        return knn_log_probs(distances, values, self.scored.targets, temperature=point.temperature)

    @cached_property
    def nll(self) -> NDArray[np.float64]:
        """The nll of the tuned kNN-LM, (n,) in nats."""
        return self.scored.knn_nll(self.found, self.tuned.point)

    def rows(
        self, setting: str, *, against: Mapping[str, NDArray[np.float64]], method: str = KNN_LM
    ) -> list[Row]:
        """Return the settings that validation chose, and the rows of the tuned kNN-LM."""
        rows = self.scored.rows(method, setting, self.nll, against=against)
        return self.tuned_rows(setting, method) + rows

    def tuned_rows(self, setting: str, method: str = KNN_LM) -> list[Row]:
        """Return the settings that validation chose."""
        tuned, names = self.tuned, self.scored.row_names(method, setting) | {"split": "validation"}
        distance, mean = UNITS[self.searched["search"].get("metric", "l2")]
        chosen = {
            ("k", "neighbors"): tuned.point.k,
            ("lmbda", "weight on kNN"): tuned.point.lmbda,
            ("temperature", distance): tuned.point.temperature,
            ("temperature_relative", mean): tuned.temperature_relative,
            (mean.replace(" ", "_"), distance): tuned.mean_squared_distance,
        }
        return [
            {**names, "metric": metric, "value": value, "n": tuned.n_queries, "unit": unit}
            for (metric, unit), value in chosen.items()
        ]
