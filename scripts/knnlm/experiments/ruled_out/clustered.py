"""Clustering: whether far fewer entries would do.

Keys are clustered by k-means. A cluster stands at its centroid and has the distribution of its
entries' values; its weight is a softmax over the negative squared distances to all centroids:

    p(w) = sum_j softmax_j(-|q - c_j|^2 / temperature) * share of w among the values of cluster j

The distribution of values, every centroid counted once, and clusters as many as some multiple of
the vocabulary are those of the code that Xu et al. (2023) released (cluster/, agg_softmax); there
the softmax is over inner products.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from knnlm.experiments.ruled_out.component import (
    SPLITS,
    VALIDATION,
    Component,
    Cost,
    save_component,
)
from knnlm.experiments.ruled_out.subject import NUMBERS_AT_A_TIME, Subject, squared_distances_to
from knnlm.retrieval.datastore import Datastore, in_memory, shard_name
from knnlm.retrieval.encoder import available_device
from knnlm.retrieval.engines.exact import search_exact
from knnlm.retrieval.sampling import evenly_spaced
from knnlm.runtime.artifacts import load_array, save_array
from knnlm.runtime.seeds import derive_seed

METHOD = "clustered_datastore"
PROBABILITY, TOKEN = 4, 4  # bytes of an entry of a cluster's distribution


def stages(
    subject: Subject, settings: Mapping[str, Any], folder: Path
) -> dict[Path, Callable[[], None]]:
    """Return what is made, by the file that it is written to.

    For each number of clusters they are the centroids, the cluster of every entry of each shard,
    and the distribution.

    Args:
        subject: the LM.
        settings: clusters, train_keys, iterations and temperatures.
        folder: where the files go.

    Raises:
        ValueError: if there are more clusters than entries.
    """
    store, found = subject.store, {}
    for n_clusters in settings["clusters"]:
        require_entries(n_clusters, store.n_entries)
        place, path = folder / f"{n_clusters}-clusters", folder / f"{METHOD}-{n_clusters}.npz"
        centroids = place / "centroids.npy"
        shards = [place / f"{shard_name(number)}.npy" for number in range(len(store.shards))]
        found[centroids] = partial(
            _save, centroids, centroids_of, store, n_clusters, settings, seed=subject.seed
        )
        for number, shard in enumerate(shards):
            found[shard] = partial(_save, shard, _nearest, store, number, centroids)
        found[path] = partial(_write_component, path, subject, centroids, shards, settings)
    return found


def _save(path: Path, make: Callable[..., NDArray[Any]], *arguments: Any, **named: Any) -> None:
    save_array(path, make(*arguments, **named))


def require_entries(n_clusters: int, n_entries: float) -> None:
    """Check that there are at least as many entries as clusters.

    Raises:
        ValueError: otherwise.
    """
    if n_clusters > n_entries:
        raise ValueError(
            f"ruled_out.{METHOD}.clusters: expected at most as many clusters as the datastore has "
            f"entries, {n_entries:,.0f}, got {n_clusters:,}; take fewer"
        )


def centroids_of(
    store: Datastore, n_clusters: int, settings: Mapping[str, Any], *, seed: int
) -> NDArray[np.float32]:
    """Return the centroids (n_clusters, d) of evenly spaced keys, by Lloyd's algorithm (faiss).

    Args:
        store: the datastore.
        n_clusters: how many.
        settings: `train_keys` that are clustered, and `iterations`.
        seed: of the keys from which it starts.
    """
    ids = evenly_spaced(store.n_entries, max(settings["train_keys"], n_clusters))
    sample = [
        keys[ids[(ids >= first) & (ids < first + len(keys))] - first]
        for first, keys in store.slices()
    ]
    clustering = faiss.Kmeans(
        store.dim,
        n_clusters,
        niter=settings["iterations"],
        seed=derive_seed(seed, "clusters", n_clusters) % (1 << 31),
        min_points_per_centroid=1,  # only silences a warning
        max_points_per_centroid=len(ids),  # use all of the sample
        gpu=available_device() == "cuda" and hasattr(faiss, "StandardGpuResources"),
    )
    clustering.train(np.concatenate(sample))
    return clustering.centroids


def _nearest(store: Datastore, number: int, centroids: Path) -> NDArray[np.int32]:
    """Return the cluster of every entry of a shard, (n,): of equally near ones the first."""
    points = load_array(centroids)
    first = number * store.rows_per_shard
    rows = range(first, min(first + store.rows_per_shard, store.n_entries))
    clusters = in_memory(points, np.arange(len(points)), name="centroids")
    found = [
        search_exact(keys, clusters, k=1, device=available_device())[0][:, 0]
        for _, keys in store.between(rows).slices()
    ]
    return np.concatenate(found).astype(np.int32)


def shares_of_values(
    clusters: NDArray[np.integer], values: NDArray[np.integer], shape: tuple[int, int]
) -> csr_array:
    """Return the share of each token among the values of each cluster, (V, n_clusters) sparse.

    Args:
        clusters: (n_entries,), the cluster of each entry.
        values: (n_entries,), its value.
        shape: V and the number of clusters.
    """
    counts = csr_array((np.ones(len(values)), (values, clusters)), shape=shape)  # adds up
    sizes = np.bincount(clusters, minlength=shape[1])
    counts.data /= sizes[counts.indices]
    return counts


def clustered_log_probs(
    distances: torch.Tensor, shares: NDArray[np.float64], temperature: float
) -> torch.Tensor:
    """Return the log-probability of targets, (n,) in nats; -inf where it is below 1e-308.

    Args:
        distances: (n, n_clusters) float64, squared L2.
        shares: (n, n_clusters), the share of the target among the values of each cluster.
        temperature: above 0.
    """
    weights = torch.softmax(-distances / temperature, dim=1)
    return (weights * torch.from_numpy(shares).to(weights.device)).sum(dim=1).log()


def _write_component(
    path: Path,
    subject: Subject,
    centroids: Path,
    shards: Sequence[Path],
    settings: Mapping[str, Any],
) -> None:
    """Score the targets of both splits, and write what was found."""
    points, clusters = load_array(centroids), np.concatenate([*map(load_array, shards)])
    values = np.concatenate([shard.datastore_values for shard in subject.store.shards])
    shares = shares_of_values(clusters, values, (len(subject.head), len(points)))
    filled = np.bincount(clusters, minlength=len(points)) > 0  # an empty one has no distribution
    site, series = subject.store.settings["site"], settings["temperatures"]
    unit = _mean_distance(subject.hidden(VALIDATION, site), points[filled])
    temperatures = unit * np.geomspace(series["low"], series["high"], series["count"])
    scored = partial(_scored, subject, points[filled], csr_array(shares[:, filled]), temperatures)
    size = points.size * subject.store.dtype.itemsize + shares.nnz * (PROBABILITY + TOKEN)
    component = Component(
        METHOD,
        f"{len(points)} clusters",
        "temperature",
        temperatures,
        {split: scored(split) for split in SPLITS},
        Cost(2.0 * points.size, float(size)),
    )
    save_component(path, component)


def _mean_distance(queries: NDArray[np.float32], points: NDArray[np.float32]) -> float:
    """Return the mean squared distance of queries to points, all pairs of them."""
    moments = [
        ((one**2).sum(axis=1).mean(), one.mean(axis=0))
        for one in (queries.astype(np.float64), points.astype(np.float64))
    ]
    (squares, mean), (other_squares, other_mean) = moments
    return float(squares - 2 * mean @ other_mean + other_squares)


def _scored(
    subject: Subject,
    centroids: NDArray[np.float32],
    shares: csr_array,
    temperatures: NDArray[np.float64],
    split: str,
) -> NDArray[np.float64]:
    """Return the log-probability of each target at each temperature, (n_temperatures, n)."""
    points = torch.from_numpy(centroids).double().to(available_device())
    hidden = subject.hidden(split, subject.store.settings["site"])
    targets = subject.scored[split].targets
    found = np.empty((len(temperatures), len(targets)))
    tile = max(1, NUMBERS_AT_A_TIME // len(points))
    for first in range(0, len(targets), tile):
        rows = slice(first, first + tile)
        distances = squared_distances_to(points, hidden[rows])
        of_targets = shares[targets[rows]].toarray()
        for place, temperature in enumerate(temperatures):
            found[place, rows] = clustered_log_probs(distances, of_targets, temperature).cpu()
    return found
