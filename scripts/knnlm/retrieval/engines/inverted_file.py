"""Approximate search: inverted files of faiss, with full keys (ivf_flat) or codes (ivfpq).

Keys are clustered; a query is compared with the keys of its nearest clusters only. Khandelwal
et al. (2020) cluster 1M keys around 4,096 centroids, store codes of 64 bytes, and read 32
clusters. Their distances come from full keys, fetched again (`rescore`); those of the codes are
what others report. Settings of a search are given with each search, never left in the index.

An index is trained once, on a sample. Then each part encodes the keys of its shards, one file of
codes for each: the number of the cluster and the code of every key, in the order of the keys, so
that ids are arithmetic. Each code is written once; the lists of the clusters are put together in
memory when a search begins, from the codes of its part.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Datastore, open_datastore, sample_keys, shard_name
from knnlm.retrieval.engines.exact import check_norms, check_products, check_search
from knnlm.retrieval.engines.nearest import no_neighbors, sort_neighbors
from knnlm.retrieval.engines.settings import CODE_BITS, TRAINED, check_index
from knnlm.retrieval.parts import Part
from knnlm.runtime.artifacts import (
    ArtifactError,
    atomic_path,
    identity,
    load_array,
    read_manifest,
    rebuild_hint,
    require_origin,
    verify_checksums,
)
from knnlm.runtime.logs import LOGGER, Progress
from knnlm.runtime.making import Target, making
from knnlm.runtime.seeds import derive_seed
from knnlm.runtime.signals import stop_if_asked

CENTROIDS = "centroids.faiss"  # waits in the partial folder: clustering takes longest
MARGIN = 32  # neighbors beyond k that are asked for, so that ties at the last place show


def train_index(target: Target, *, datastore: Path, index: Mapping[str, Any]) -> None:
    """Train an index on a sample of the keys and publish it, empty.

    Two stages, the centroids and the code; a training that was interrupted goes on with the
    second. Memory: the sample in fp32, 4 x train_keys x dim bytes, and about as much for the
    clustering.

    Args:
        target: what is made; its seed is that of the sample and of the clustering.
        datastore: the folder of the datastore.
        index: the entry of the config: engine, metric, n_centroids, n_probes, train_keys,
            rescore, and code_bytes for ivfpq.

    Raises:
        ValueError: if a setting does not fit the datastore.
    """
    store, seed = open_datastore(datastore), target.seed
    check_index(index, n_entries=store.n_entries, dim=store.dim)
    made_from = {"datastore": identity(datastore, kind="datastore")}
    settings = {**index, "seed": seed}
    with making(target, kind="index_head", made_from=made_from, settings=settings) as made:
        sample = sample_keys(store, index["train_keys"], seed=seed)
        check_sample(sample, index, name=str(datastore))
        waiting = made.folder / CENTROIDS
        clustered = waiting.is_file()
        stages = Progress("index", total=2, unit="stages", done=int(clustered))
        if not clustered:
            _write(_centroids(sample, index, seed=seed), waiting)
            stages.update(1, "clustering is done")
            stop_if_asked()
        centroids = faiss.read_index(str(waiting))
        _write(_trained(sample, centroids, index, seed=seed), made.folder / TRAINED)
        waiting.unlink()
        stages.update(2)


def encode_index_part(target: Target, *, datastore: Path, head: Path, part: Part) -> None:
    """Encode the keys of a part and publish their codes, shard by shard.

    A part that was interrupted goes on with the missing shards. Memory: a slice of keys in fp32
    and its codes, some 1 GiB; bytes on disk: n_entries x bytes_per_entry over all parts.

    Args:
        target: what is made.
        datastore: the folder of the datastore.
        head: the trained index.
        part: which shards.

    Raises:
        ArtifactError: if the index was trained on another datastore.
    """
    store = open_datastore(datastore).part(part)
    made_from = {"datastore": identity(datastore, kind="datastore")}
    require_origin(head, kind="index_head", role="datastore", expected=made_from["datastore"])
    trained = faiss.read_index(str(head / TRAINED))
    made_from["head"] = identity(head, kind="index_head")
    settings = read_manifest(head, kind="index_head")["settings"]
    with making(target, kind="index_part", made_from=made_from, settings=settings) as made:
        _encode_shards(made.folder, store, trained)
        made.contents |= {
            "engine": settings["engine"],
            "n_entries": store.n_entries,
            "dim": store.dim,
            "n_centroids": trained.nlist,
            "bytes_per_entry": trained.sa_code_size(),
            "rows": [store.rows.start, store.rows.stop],
        }


def _encode_shards(partial: Path, store: Datastore, trained: faiss.IndexIVF) -> None:
    """Write the codes of the shards that have none yet."""
    ranges = [range(i, min(i + store.rows_per_shard, store.rows.stop)) for i in _firsts(store)]
    missing = [rows for rows in ranges if not _codes_path(partial, store, rows.start).is_file()]
    done = len(store.rows) - sum(map(len, missing))
    progress = Progress("index", total=len(store.rows), unit="keys", done=done)
    for rows in missing:
        shape = (len(rows), trained.sa_code_size())
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with (
            atomic_path(_codes_path(partial, store, rows.start)) as temporary,
            temporary.open("wb") as file,  # not a memory map: a full disk would end the process
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for _, keys in store.between(rows).slices():
                file.write(trained.sa_encode(keys).data)
        done += len(rows)
        progress.update(done)
        stop_if_asked()


def _firsts(store: Datastore) -> range:
    return store.rows[:: store.rows_per_shard]


def _codes_path(folder: Path, store: Datastore, first: int) -> Path:
    return folder / f"{shard_name(first // store.rows_per_shard)}.npy"


def check_sample(sample: NDArray[np.float32], index: Mapping[str, Any], *, name: str) -> None:
    """Check that the inner products of an index of the metric ip would say something.

    Raises:
        ValueError: if the sampled keys of the datastore called `name` are all zero or too large.
    """
    if metric_of(index) == faiss.METRIC_INNER_PRODUCT:
        check_products(-np.abs(sample), name=name)
        norm = float(np.linalg.norm(sample.astype(np.float64), axis=1).max())
        check_norms(norm, norm)


def metric_of(index: Mapping[str, Any]) -> int:
    """Return faiss's number of the metric of an entry of the config."""
    return {"l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT}[index.get("metric", "l2")]


def _centroids(
    sample: NDArray[np.float32], settings: Mapping[str, Any], *, seed: int
) -> faiss.Index:
    """Return the centroids of the clusters of a sample; of unit length for inner products."""
    metric, n_centroids = metric_of(settings), settings["n_centroids"]
    quantizer = faiss.IndexFlat(sample.shape[1], metric)
    index = faiss.IndexIVFFlat(quantizer, sample.shape[1], n_centroids, metric)
    index.cp.seed = derive_seed(seed, "centroids") % (1 << 31)
    index.cp.min_points_per_centroid = 1  # only silences a warning
    index.cp.max_points_per_centroid = len(sample)  # use all of the sample
    LOGGER.info("index: clustering %s keys around %s centroids", len(sample), n_centroids)
    index.train(sample)
    return quantizer


def _trained(
    sample: NDArray[np.float32], centroids: faiss.Index, settings: Mapping[str, Any], *, seed: int
) -> faiss.IndexIVF:
    """Return the trained, empty index with these centroids, which faiss keeps as they are."""
    dim = sample.shape[1]
    if settings["engine"] == "ivf_flat":
        index = faiss.IndexIVFFlat(centroids, dim, centroids.ntotal, metric_of(settings))
    else:
        code = (settings["code_bytes"], CODE_BITS)
        index = faiss.IndexIVFPQ(centroids, dim, centroids.ntotal, *code, metric_of(settings))
        index.pq.cp.seed = derive_seed(seed, "codes") % (1 << 31)
        index.pq.cp.min_points_per_centroid = 1
    index.train(sample)
    return index


def _write(index: faiss.Index, path: Path) -> None:
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))


def index_of(
    sample: NDArray[np.float32], settings: Mapping[str, Any], *, seed: int
) -> faiss.IndexIVF:
    """Return an index trained on a sample of keys, empty; settings as for `train_index`."""
    return _trained(sample, _centroids(sample, settings, seed=seed), settings, seed=seed)


def open_index(
    folder: Path, *, datastore: Datastore, chosen: NDArray[np.bool_] | None = None
) -> faiss.IndexIVF:
    """Return an index with the rows of a part of its datastore.

    Memory: the codes and ids of the rows, about (bytes_per_entry + 8) x rows, and a file of codes.

    Args:
        folder: of the index.
        datastore: the one that it was built from; its `rows` count.
        chosen: (n_entries,), which of them are in it; all if None.

    Raises:
        ArtifactError: if it is not whole, or was made from another datastore.
    """
    expected = identity(datastore.folder, kind="datastore")
    require_origin(folder, kind="index", role="datastore", expected=expected)
    paths = [_codes_path(folder, datastore, first) for first in _firsts(datastore)]
    verify_checksums(folder, kind="index", names={TRAINED, *(path.name for path in paths)})
    index = faiss.read_index(str(folder / TRAINED))
    for first, path in zip(_firsts(datastore), paths, strict=True):
        codes = load_array(path, dtype=np.uint8, columns=index.sa_code_size())
        n_rows = min(datastore.rows_per_shard, datastore.rows.stop - first)
        if len(codes) != n_rows:
            raise ArtifactError(
                f"expected {path} to have {n_rows:,} rows, got {len(codes):,}; "
                f"{rebuild_hint(folder)}"
            )
        ids = np.arange(first, first + n_rows)
        if chosen is not None:
            codes, ids = codes[chosen[ids]], ids[chosen[ids]]
        index.add_sa_codes(np.ascontiguousarray(codes), ids)
    return index


def search_index(
    queries: NDArray[np.float32],
    index: faiss.IndexIVF,
    datastore: Datastore,
    *,
    k: int,
    n_probes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and distances, those of the codes, of up to k neighbors of each query.

    Args:
        queries: (n_queries, dim), finite.
        index: from `open_index`, with the keys of one part or of all.
        datastore: the one that the index was built from.
        k: number of neighbors, at most the number of entries.
        n_probes: clusters that are read for a query.

    Returns:
        ids (n_queries, k) and distances (n_queries, k), squared L2 or inner products with their
        sign turned, ascending, equal ones by ascending id; id -1 and distance +inf where the
        clusters held fewer than k keys.

    Raises:
        ValueError: if k, a shape or a query is not as above.
    """
    queries = check_search(queries, datastore, k=k)
    parameters = search_parameters(n_probes)
    turned = index.metric_type == faiss.METRIC_INNER_PRODUCT
    ids, distances = no_neighbors(len(queries), k)
    open_ones, wanted = np.arange(len(queries)), k + MARGIN
    while len(open_ones):
        wanted = max(1, min(wanted, index.ntotal))
        found, found_ids = index.search(queries[open_ones], wanted, params=parameters)
        found = -found if turned else np.maximum(found, 0)  # codes may put a square below 0
        found[found_ids < 0] = np.inf
        near_ids, near = sort_neighbors(found_ids, found, k=k)
        ids[open_ones, : near.shape[1]], distances[open_ones, : near.shape[1]] = near_ids, near
        tied = (found_ids[:, -1] >= 0) & (found[:, -1] <= distances[open_ones, -1])
        open_ones = open_ones[tied & (wanted < index.ntotal)]
        wanted *= 2  # equal distances at the last place: ask for more, the smaller ids count
    return ids, distances


def search_parameters(n_probes: int) -> faiss.SearchParametersIVF:
    """Return what a search is run with; faiss would otherwise read one cluster."""
    return faiss.SearchParametersIVF(nprobe=n_probes)
