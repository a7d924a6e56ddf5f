"""Approximate search: inverted files of faiss, with full keys (ivf_flat) or codes (ivfpq).

Keys are clustered; a query is compared with the keys of its nearest clusters only. Khandelwal
et al. (2020) cluster 1M keys around 4,096 centroids, store codes of 64 bytes, and read 32
clusters. Their distances come from full keys, fetched again (`rescore`); those of the codes are
what others report. Settings of a search are given with each search, never left in the index.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Datastore, group_by_range, open_datastore
from knnlm.retrieval.exact import MARGIN, check_search, sort_neighbors, squared_distances
from knnlm.runtime.artifacts import (
    atomic_path,
    identity,
    partial_folder,
    publish,
    read_manifest,
    require_origin,
    write_manifest,
)
from knnlm.runtime.logs import LOGGER, Progress
from knnlm.runtime.seeds import derive_seed, numpy_generator
from knnlm.runtime.signals import stop_if_asked

ENGINES = ("exact", "ivf_flat", "ivfpq")
INDEX = "index.faiss"
TRAINED = "trained.faiss"  # waits in the partial folder: clustering takes longest
CODE_BITS = 8  # of each part of a code, as in the paper: 256 centroids a part


def build_index(
    *, output: Path, fingerprint: str, datastore: Path, index: Mapping[str, Any], seed: int
) -> None:
    """Train an index on a sample of the keys, add every key, and publish it.

    Exact search needs no index: its artifact is a manifest.

    Args:
        output: the folder to make.
        fingerprint: names the folder in which the trained index waits.
        datastore: the folder of the datastore.
        index: the block of the config: engine, and for the approximate ones n_centroids,
            n_probes, train_keys, rescore, and code_bytes for ivfpq.
        seed: of the sample and the clustering.

    Raises:
        ValueError: if a setting does not fit the datastore.
    """
    store = open_datastore(datastore)
    check_index(index, n_entries=store.n_entries, dim=store.dim)
    partial = partial_folder(output, fingerprint)
    contents = {"engine": index["engine"], "n_entries": store.n_entries, "dim": store.dim}
    if index["engine"] != "exact":
        clustered = (partial / TRAINED).is_file()
        stages = Progress("index", total=2, unit="stages", done=int(clustered))
        trained = _trained(partial / TRAINED, store, index, seed=seed)
        stages.update(1, "clustering is done")
        stop_if_asked()
        progress = Progress("index", total=store.n_entries, unit="keys")
        for start, keys in store.slices():
            trained.add(keys)
            progress.update(start + len(keys))
        contents |= {"n_centroids": trained.nlist, "bytes_per_entry": trained.code_size}
        _write(trained, partial / INDEX)
        (partial / TRAINED).unlink()
    write_manifest(
        partial,
        kind="index",
        settings={**index, "seed": seed},
        made_from={"datastore": identity(datastore, kind="datastore")},
        contents=contents,
    )
    publish(partial, output)


def check_index(index: Mapping[str, Any], *, n_entries: int, dim: int) -> None:
    """Check that the settings of an index fit a datastore.

    Raises:
        ValueError: naming the setting, what was expected and what was given.
    """
    engine = index["engine"]
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine}")
    if engine == "exact":
        return
    n_train = min(index["train_keys"], n_entries)
    n_centroids, n_probes = index["n_centroids"], index["n_probes"]
    if not 1 <= n_centroids <= n_train:
        raise ValueError(
            f"n_centroids must be from 1 to the {n_train:,} keys that {engine} is trained on, got "
            f"{n_centroids:,}; lower it, or raise train_keys"
        )
    if not 1 <= n_probes <= n_centroids:
        raise ValueError(
            f"n_probes must be from 1 to the {n_centroids:,} centroids, got {n_probes:,}"
        )
    if engine == "ivfpq" and (index["code_bytes"] < 1 or dim % index["code_bytes"]):
        raise ValueError(
            f"code_bytes must divide the width of the keys, {dim}, got {index['code_bytes']}"
        )
    if engine == "ivfpq" and n_train < 1 << CODE_BITS:
        raise ValueError(
            f"ivfpq needs at least {1 << CODE_BITS} keys to train on, got {n_train:,}; use more "
            "text or ivf_flat"
        )


def _trained(
    path: Path, datastore: Datastore, settings: Mapping[str, Any], *, seed: int
) -> faiss.IndexIVF:
    """Return the trained, empty index; read it if an interrupted job has written it."""
    if path.is_file():
        return faiss.read_index(str(path))
    quantizer = faiss.IndexFlatL2(datastore.dim)
    n_centroids = settings["n_centroids"]
    if settings["engine"] == "ivf_flat":
        index = faiss.IndexIVFFlat(quantizer, datastore.dim, n_centroids)
    else:
        code = (settings["code_bytes"], CODE_BITS)
        index = faiss.IndexIVFPQ(quantizer, datastore.dim, n_centroids, *code)
        index.pq.cp.seed = derive_seed(seed, "codes") % (1 << 31)
        index.pq.cp.min_points_per_centroid = 1
    sample = _sample(datastore, settings["train_keys"], seed=seed)
    index.cp.seed = derive_seed(seed, "centroids") % (1 << 31)
    index.cp.min_points_per_centroid = 1  # only silences a warning
    index.cp.max_points_per_centroid = len(sample)  # use all of the sample
    LOGGER.info("index: clustering %s keys around %s centroids", len(sample), n_centroids)
    index.train(sample)
    _write(index, path)
    return index


def _sample(datastore: Datastore, n_keys: int, *, seed: int) -> NDArray[np.float32]:
    """Return some keys, drawn without replacement, in the order of the datastore."""
    generator = numpy_generator(seed, "index", "train_keys")
    n_keys = min(n_keys, datastore.n_entries)
    ids = np.sort(generator.choice(datastore.n_entries, n_keys, replace=False))
    keys = np.empty((n_keys, datastore.dim), dtype=np.float32)
    for number, places in group_by_range(ids, datastore.rows_per_shard):
        shard = datastore.shards[number]
        keys[places] = shard.datastore_keys[ids[places] - shard.first_id]
    return keys


def _write(index: faiss.Index, path: Path) -> None:
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))


def open_index(folder: Path, *, datastore: Path) -> tuple[faiss.IndexIVF | None, dict[str, Any]]:
    """Return an index, None for exact search, and its settings, after checking its origin.

    Raises:
        ArtifactError: if it is not whole, or was made from another datastore.
    """
    manifest = read_manifest(folder, kind="index")
    expected = identity(datastore, kind="datastore")
    require_origin(folder, kind="index", role="datastore", expected=expected)
    settings = manifest["settings"]
    if settings["engine"] == "exact":
        return None, settings
    return faiss.read_index(str(folder / INDEX)), settings


def search_index(
    queries: NDArray[np.float32],
    index: faiss.IndexIVF,
    datastore: Datastore,
    *,
    k: int,
    n_probes: int,
    rescore: bool,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and squared distances of up to k neighbors of each query.

    Args:
        queries: (n_queries, dim), finite.
        index: from `open_index`.
        datastore: the one that the index was built from.
        k: number of neighbors, at most the number of entries.
        n_probes: clusters that are read for a query.
        rescore: whether distances are computed again from full keys; the neighbors stay the
            same, their order may change.

    Returns:
        ids (n_queries, k) and squared L2 distances (n_queries, k), ascending, equal ones by
        ascending id; id -1 and distance +inf where the clusters held fewer than k keys.

    Raises:
        ValueError: if k, a shape or a query is not as above.
    """
    queries = check_search(queries, datastore, k=k)
    parameters = search_parameters(n_probes)
    ids = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k), dtype=np.float32)
    open_ones, wanted = np.arange(len(queries)), k + MARGIN
    while len(open_ones):
        wanted = min(wanted, datastore.n_entries)
        found, found_ids = index.search(queries[open_ones], wanted, params=parameters)
        found[found_ids < 0] = np.inf
        ids[open_ones], distances[open_ones] = sort_neighbors(found_ids, found, k=k)
        tied = (found_ids[:, -1] >= 0) & (found[:, -1] <= distances[open_ones, -1])
        open_ones = open_ones[tied & (wanted < datastore.n_entries)]
        wanted *= 2  # equal distances at the last place: ask for more, the smaller ids count
    if rescore:
        distances = squared_distances(queries, datastore, ids)
        ids, distances = sort_neighbors(ids, distances, k=k)
    return ids, distances


def search_parameters(n_probes: int) -> faiss.SearchParametersIVF:
    """Return what a search is run with; faiss would otherwise read one cluster."""
    return faiss.SearchParametersIVF(nprobe=n_probes)
