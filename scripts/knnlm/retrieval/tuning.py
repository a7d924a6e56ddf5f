"""Tuning on validation: a grid of k, temperature and lmbda over stored neighbors, and its best.

The best point is an artifact of one JSON file with numbers at full precision. Everything that
comes after reads it there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.lm.scoring import load_queries
from knnlm.retrieval.interpolation import knn_log_probs, mean_distance, mix_log_probs, sweep
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.runtime.artifacts import (
    ArtifactError,
    identity,
    read_manifest,
    rebuild_hint,
    require_origin,
    save_json,
)
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target

NAMES = ("datastore", "seed", "index", "corpus")  # of a tuned point, as in its path


class Point(NamedTuple):
    """The three settings of a kNN-LM; temperature in units of squared distance."""

    k: int
    temperature: float
    lmbda: float


@dataclass(frozen=True)
class Tuning:
    """The mean nll of every point of a grid, on validation.

    Attributes:
        ks: (n_k,) numbers of neighbors.
        temperatures: (n_temperatures,), relative to `distance`.
        lmbdas: (n_lmbdas,) weights on kNN.
        distance: the mean squared distance of the found neighbors, see `mean_distance`.
        nll: (n_k, n_temperatures, n_lmbdas), nats a token.
    """

    ks: NDArray[np.int64]
    temperatures: NDArray[np.float64]
    lmbdas: NDArray[np.float64]
    distance: float
    nll: NDArray[np.float64]

    @property
    def best(self) -> tuple[int, int, int]:
        """The place of the least nll in the grid; of equal ones, the first."""
        k, temperature, lmbda = np.unravel_index(np.argmin(self.nll), self.nll.shape)
        return int(k), int(temperature), int(lmbda)

    @property
    def best_at_each_k(self) -> list[tuple[int, int, int]]:
        """The place of the least nll for each k; of equal ones, the first."""
        shape = self.nll.shape[1:]
        flat = self.nll.reshape(len(self.ks), -1).argmin(axis=1)
        return [(k, *map(int, np.unravel_index(at, shape))) for k, at in enumerate(flat)]

    @property
    def point(self) -> Point:
        """The settings of the least nll."""
        k, temperature, lmbda = self.best
        return Point(
            k=int(self.ks[k]),
            temperature=float(self.temperatures[temperature] * self.distance),
            lmbda=float(self.lmbdas[lmbda]),
        )


def tune(
    distances: NDArray[np.float32],
    values: NDArray[np.int32],
    targets: NDArray[np.int32],
    lm_log_probs: NDArray[np.float64],
    *,
    grid: Mapping[str, Any],
) -> Tuning:
    """Score the validation split at every point of a grid.

    Args:
        distances: (n_queries, k_max), squared L2, ascending; +inf where a neighbor is missing.
        values: (n_queries, k_max), -1 where a neighbor is missing.
        targets: (n_queries,).
        lm_log_probs: (n_queries,), natural logarithms.
        grid: `k`, a list, of which those above k_max are left out; `temperatures`, `low`, `high`
            and `count` of a geometric series relative to the mean distance; `lmbdas`, the same
            of an arithmetic one.

    Raises:
        ValueError: if no k is left, or see `sweep`.
    """
    ks = [k for k in grid["k"] if k <= distances.shape[1]]
    if not ks:
        raise ValueError(
            f"expected grid.k to have a number up to {distances.shape[1]}, the stored neighbors, "
            f"got {list(grid['k'])}; lower one, or raise search.k and search again"
        )
    distance = mean_distance(distances)
    temperatures, lmbdas = axes_of(grid)
    nll = sweep(
        distances,
        values,
        targets,
        lm_log_probs,
        ks=ks,
        temperatures=temperatures * distance,
        lmbdas=lmbdas,
    )
    return Tuning(np.asarray(ks, np.int64), temperatures, lmbdas, distance, nll)


def nll_at(
    point: Point,
    distances: NDArray[np.float32],
    values: NDArray[np.int32],
    targets: NDArray[np.int32],
    lm_log_probs: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the nll of each target under the kNN-LM with the given settings, in nats.

    Args:
        point: the settings.
        distances: (n_queries, k_max), squared L2, ascending; the first `point.k` are used.
        values: (n_queries, k_max).
        targets: (n_queries,).
        lm_log_probs: (n_queries,), natural logarithms.

    Raises:
        ValueError: if fewer than `point.k` neighbors were stored.
    """
    if point.k > distances.shape[1]:
        raise ValueError(
            f"expected at least k = {point.k} stored neighbors, got {distances.shape[1]}; raise "
            "search.k and search again"
        )
    nearest = slice(0, point.k)
    knn = knn_log_probs(
        distances[:, nearest], values[:, nearest], targets, temperature=point.temperature
    )
    return -mix_log_probs(lm_log_probs, knn, point.lmbda)


def axes_of(grid: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the relative temperatures and the lmbdas of a grid, see `tune`."""
    temperatures = np.geomspace(*_low_high_count(grid["temperatures"]))
    return temperatures, lmbdas_of(grid)


def lmbdas_of(grid: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the lmbdas of a grid, ascending."""
    return np.linspace(*_low_high_count(grid["lmbdas"]))


def _low_high_count(series: Mapping[str, Any]) -> tuple[float, float, int]:
    return series["low"], series["high"], series["count"]


@dataclass(frozen=True)
class Tuned:
    """A tuned point, and how it was found.

    Attributes:
        names: datastore, seed, index and corpus.
        k: number of neighbors.
        temperature: in units of squared distance.
        lmbda: weight on kNN.
        temperature_relative: the temperature over the mean squared distance.
        mean_squared_distance: of the found neighbors, see `mean_distance`.
        nll: at the point, nats a token of validation.
        n_queries: on which it was tuned.
        place: of k, temperature and lmbda in the grid.
        places: for each k of the grid the best place with this k: temperature and lmbda retuned.
        grid: `k`, relative `temperatures` and `lmbdas` that were tried.
        made_from: the identities of queries and neighbors.
    """

    names: Mapping[str, str]
    k: int
    temperature: float
    lmbda: float
    temperature_relative: float
    mean_squared_distance: float
    nll: float
    n_queries: int
    place: tuple[int, int, int]
    places: Sequence[tuple[int, int, int]]
    grid: Mapping[str, list[float]]
    made_from: Mapping[str, str]

    @property
    def point(self) -> Point:
        """The three settings."""
        return Point(self.k, self.temperature, self.lmbda)


def tune_interpolation(
    target: Target, *, queries: Path, neighbors: Path, grid: Mapping[str, Any]
) -> None:
    """Tune on stored neighbors, and write the best point as JSON.

    Args:
        target: the file, and the names of the point.
        queries: of validation.
        neighbors: of these queries.
        grid: see `tune`.

    Raises:
        ArtifactError: if the queries are of another split, or the neighbors of other queries.
        ValueError: see `tune`.
    """
    split = read_manifest(queries, kind="queries")["names"]["split"]
    if split != "validation":
        raise ArtifactError(f"expected queries of validation to tune on, got {queries}, of {split}")
    made_from = {"queries": identity(queries, kind="queries")}
    require_origin(neighbors, kind="neighbors", role="queries", expected=made_from["queries"])
    made_from["neighbors"] = identity(neighbors, kind="neighbors")
    scored, found = load_queries(queries), load_neighbors(neighbors)
    targets, lm_log_probs = (a[found.places] for a in (scored.targets, scored.lm_log_probs))
    tuning = tune(found.distances, found.values, targets, lm_log_probs, grid=grid)
    place = tuning.best
    tuned = Tuned(
        names=dict(target.names),
        **tuning.point._asdict(),
        temperature_relative=float(tuning.temperatures[place[1]]),
        mean_squared_distance=tuning.distance,
        nll=float(tuning.nll[place]),
        n_queries=len(targets),
        place=place,
        places=tuning.best_at_each_k,
        grid={
            "k": tuning.ks.tolist(),
            "temperatures": tuning.temperatures.tolist(),
            "lmbdas": tuning.lmbdas.tolist(),
        },
        made_from=made_from,
    )
    LOGGER.info("tuned on %s queries: %s", len(targets), tuning.point)
    save_json(target.output, asdict(tuned))


def read_tuned(path: Path) -> Tuned:
    """Read a tuned point; every number is the one that was written, to the bit.

    Raises:
        ArtifactError: if the file is missing, or is not a whole tuned point of its path.
    """
    try:
        read = json.loads(path.read_text(encoding="ascii"))
        places = [tuple(place) for place in read["places"]]
        tuned = Tuned(**read | {"place": tuple(read["place"]), "places": places})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"{path} cannot be read as a tuned point ({error}); {rebuild_hint(path)}"
        ) from error
    parts = {*path.parent.parts, path.stem}
    for name, value in tuned.names.items():
        if not {value, f"{name}{value}"} & parts:
            raise ArtifactError(
                f"expected {path} to be of what its path says, it is of {name} {value}; "
                f"{rebuild_hint(path)}"
            )
    return tuned
