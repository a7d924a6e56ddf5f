"""Which neighbors count, and how much each counts: masks and scores that are combined at will.

Xu et al. (2023) tell apart the neighbors that a search finds (the mask) and the distances that the
softmax takes (the score), each approximate or real. All of it is stored, in shares of a datastore
below 1 by `search_shares`, and of the whole datastore by the two indexes that found neighbors
anyway, so that every combination, temperature and lmbda is scored without a search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import ScoredSplit
from knnlm.retrieval.interpolation import knn_probs, mean_distance, mean_nll, mix_log_probs
from knnlm.retrieval.neighbors import ROUGH
from knnlm.runtime.artifacts import ArtifactError, identity, rebuild_hint, require_origin

REAL, APPROXIMATE, HALF = "real", "approximate", "half"
WHOLE = "1.0"  # the share that is the datastore
SPLITS = ("validation", "test")


class Mode(NamedTuple):
    """Which neighbors count, and by which distances."""

    mask: str
    score: str

    @property
    def name(self) -> str:
        """Its name in tables: mask, then score."""
        return f"{self.mask}_{self.score}"


MODES = (Mode(APPROXIMATE, APPROXIMATE), Mode(APPROXIMATE, REAL), Mode(REAL, REAL))
IN_HALF = Mode(HALF, HALF)


def file_of(share: str, mask: str, split: str) -> str:
    """Return the name of the file of neighbors in a share."""
    return f"{share}-{mask}-{split}.npz"


class Candidates(NamedTuple):
    """Neighbors of every query of a split: distances (n, k), ascending, and value is target."""

    distances: NDArray[np.float32]
    matches: NDArray[np.bool_]


@dataclass(frozen=True)
class Masks:
    """The stored neighbors of one LM seed, in shares of its datastore.

    Attributes:
        run: the folders of the evaluation.
        seed: of the LM.
        shares: the folder that `search_shares` made.
        settings: the block approximate_search of the config: `exact` and `index`, the names of
            the indexes of the whole datastore; `queries`, how many of each split were searched
            in shares, evenly spaced; None is all.
    """

    run: ScoredRun
    seed: int
    shares: Path
    settings: Mapping[str, Any]

    @cached_property
    def scored(self) -> dict[str, ScoredSplit]:
        """What the LM scored, by split."""
        splits = {
            s: self.run.scored(self.seed, s, positions=self.settings["queries"]) for s in SPLITS
        }
        for split, scored in splits.items():
            expected = identity(scored.queries.folder, kind="queries")
            role = f"queries_{split}"
            require_origin(self.shares, kind="shares", role=role, expected=expected)
        return splits

    def candidates(self, share: str, mode: Mode, split: str) -> Candidates:
        """Return the neighbors that a mask lets count, by the distances of a score."""
        rough = mode.score == APPROXIMATE
        if share == WHOLE and mode.mask != HALF:
            arrays = self._whole(mode.mask, split, rough=rough)
        else:
            arrays = self._stored(file_of(share, mode.mask, split))
        distances, matches = arrays[ROUGH if rough else "distances"], arrays["matches"]
        if rough:
            order = np.argsort(distances, axis=1, kind="stable")
            distances, matches = (np.take_along_axis(a, order, 1) for a in (distances, matches))
        return Candidates(distances, matches)

    def recall(self, share: str, mask: str) -> float:
        """Return the share of the real neighbors of test that a mask lets count.

        A neighbor is a real one if it is no further than the last of them: by the stored full
        distances, which those of another precision do not have.
        """
        last = self.candidates(share, Mode(REAL, REAL), "test").distances[:, -1:]
        found = self.candidates(share, Mode(mask, REAL), "test").distances
        return float(((found <= last) & np.isfinite(found)).mean())

    def _whole(self, mask: str, split: str, *, rough: bool) -> dict[str, NDArray]:
        scored = self.scored[split]
        index = self.settings["index" if mask == APPROXIMATE else "exact"]
        folder = self.run.neighbors[self.run.baseline["datastore"], self.seed, index, split]
        found = scored.neighbors(folder, rough=rough)
        matches = found.values == scored.targets[:, None]
        return {"distances": found.distances, ROUGH: found.rough, "matches": matches}

    def _stored(self, name: str) -> dict[str, NDArray]:
        path = self.shares / name
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except Exception as error:  # zipfile, zlib and NumPy each have their own
            raise ArtifactError(
                f"{path} cannot be read as neighbors ({error}); {rebuild_hint(self.shares)}"
            ) from error

    def tempered(
        self,
        share: str,
        mode: Mode,
        *,
        relative: Sequence[float],
        fixed: Sequence[float] = (),
        unit: float | None = None,
    ) -> "Tempered":
        """Return the probabilities of the targets at temperatures.

        Args:
            share: of the datastore.
            mode: mask and score.
            relative: temperatures, relative to the unit.
            fixed: further temperatures, in units of squared distance; they come first.
            unit: None is the mean squared distance of the neighbors of validation, by the score.
        """
        found = {split: self.candidates(share, mode, split) for split in SPLITS}
        unit = unit or mean_distance(found["validation"].distances)
        temperatures = np.array([*fixed, *(unit * np.asarray(relative))])
        probs = {
            split: knn_probs(*candidates, temperatures=temperatures)
            for split, candidates in found.items()
        }
        lm = {split: -scored.nll for split, scored in self.scored.items()}
        return Tempered(temperatures, unit, probs, lm)


@dataclass(frozen=True)
class Tempered:
    """The probabilities of the targets by one mask and score, at several temperatures.

    Attributes:
        temperatures: (n_temperatures,), in units of squared distance.
        unit: of relative temperatures.
        probs: p_kNN of the targets (n_temperatures, n_queries), by split.
        lm_log_probs: (n_queries,), nats, by split.
    """

    temperatures: NDArray[np.float64]
    unit: float
    probs: Mapping[str, NDArray[np.float64]]
    lm_log_probs: Mapping[str, NDArray[np.float64]]

    def at(self, place: int) -> "Tempered":
        """Return the same at one of the temperatures alone."""
        probs = {split: found[[place]] for split, found in self.probs.items()}
        return replace(self, temperatures=self.temperatures[[place]], probs=probs)

    def best(
        self, lmbdas: NDArray[np.float64], *, split: str = "validation"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return for each temperature the lmbda with the least mean nll on a split, and that."""
        nll = mean_nll(self.lm_log_probs[split], self.probs[split], lmbdas)
        return lmbdas[nll.argmin(axis=1)], nll.min(axis=1)

    def nll(self, place: int, lmbda: float) -> NDArray[np.float64]:
        """Return the nll of the mixture on test at one temperature, (n_queries,) in nats."""
        return -mix_log_probs(self.lm_log_probs["test"], self.knn_log_probs(place), lmbda)

    def oracle(self, place: int) -> NDArray[np.float64]:
        """Return the nll of the better of LM and kNN for each token of test, in nats."""
        lm = self.lm_log_probs["test"]
        return -np.fmax(lm, self.knn_log_probs(place))  # a query without neighbors has NaN

    def knn_log_probs(self, place: int) -> NDArray[np.float64]:
        """Return log p_kNN of the targets of test, (n_queries,); -inf where it is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.probs["test"][place])
