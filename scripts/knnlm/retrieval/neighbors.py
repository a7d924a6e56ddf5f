"""Stored neighbors: found once, so that k, temperature and lmbda are scored without a search.

Queries are searched in blocks; each block is published whole, and a search that was interrupted
goes on with the missing ones. A missing neighbor has id -1, distance +inf and value -1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.lm.scoring import load_queries
from knnlm.retrieval.datastore import Datastore, open_datastore
from knnlm.retrieval.encoder import available_device
from knnlm.retrieval.exact import check_search, search_exact
from knnlm.retrieval.inverted_file import open_index, search_index, search_parameters
from knnlm.runtime.artifacts import (
    ArtifactError,
    atomic_path,
    identity,
    partial_folder,
    publish,
    read_manifest,
    rebuild_hint,
    require_origin,
    verify_checksums,
    write_manifest,
)
from knnlm.runtime.logs import Progress
from knnlm.runtime.seeds import numpy_generator
from knnlm.runtime.signals import stop_if_asked


@dataclass(frozen=True)
class Neighbors:
    """Neighbors of every query, nearest first.

    Attributes:
        ids: (n_queries, k) int64, entries of the datastore; -1 where missing.
        distances: (n_queries, k) float32, squared L2, ascending; +inf where missing.
        values: (n_queries, k) int32, the token that followed each neighbor; -1 where missing.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    values: NDArray[np.int32]


def search(
    *,
    output: Path,
    fingerprint: str,
    datastore: Path,
    index: Path,
    queries: Path,
    k: int,
    block_queries: int,
    recall_sample: int,
    seed: int,
    device: str | None = None,
) -> None:
    """Find the neighbors of every query and publish them, with the recall of the engine.

    Args:
        output: the folder to make.
        fingerprint: names the folder in which finished blocks wait.
        datastore: the folder of the datastore; its key site is searched.
        index: the folder of its index, which says the engine and its settings.
        queries: the folder of the queries, made by the same model from the same corpus.
        k: neighbors of a query.
        block_queries: queries searched and published together.
        recall_sample: queries on which an approximate engine is compared with exact search.
        seed: of that sample.
        device: of exact search; None takes a GPU if there is one; no number depends on it.

    Raises:
        ValueError: if k is larger than the datastore.
        ArtifactError: if an artifact is not what was written, or was made from another one.
    """
    verify_checksums(datastore, kind="datastore")
    store = open_datastore(datastore)
    for role in ("model", "tokens"):
        require_origin(queries, kind="queries", role=role, expected=store.made_from[role])
    device = device or available_device()
    engine = _Engine(store, index, k=k, device=device)
    hidden = load_queries(queries).hidden(store.settings["site"])
    check_search(hidden[:1], store, k=k)
    partial = partial_folder(output, fingerprint)
    _search_blocks(partial, engine, hidden, block_queries=block_queries)
    chosen = _recall_sample(len(hidden), recall_sample, seed=seed)
    ids = _read_blocks(partial, n_queries=len(hidden), block_queries=block_queries, k=k).ids
    write_manifest(
        partial,
        kind="neighbors",
        settings={"k": k, "recall_sample": recall_sample, "seed": seed},
        made_from={
            "datastore": identity(datastore, kind="datastore"),
            "index": identity(index, kind="index"),
            "queries": identity(queries, kind="queries"),
        },
        contents={
            "n_queries": len(hidden),
            "block_queries": block_queries,
            "k": k,
            "site": store.settings["site"],
            "search": engine.settings_in_use(),
            "recall": engine.recall(hidden[chosen], ids[chosen]),
            "recall_queries": len(chosen),
        },
    )
    publish(partial, output)


def load_neighbors(folder: Path) -> Neighbors:
    """Read stored neighbors.

    Raises:
        ArtifactError: naming the file that is missing, truncated or of another shape.
    """
    contents = read_manifest(folder, kind="neighbors")["contents"]
    shape = {name: contents[name] for name in ("n_queries", "block_queries", "k")}
    return _read_blocks(folder, **shape)


def recall(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Return the mean share of the expected ids that were found, (n_queries, k) both."""
    hits = [np.isin(row, other).mean() for row, other in zip(expected, found, strict=True)]
    return float(np.mean(hits))


class _Engine:
    """One way to search one datastore, as the manifest of its index says."""

    def __init__(self, datastore: Datastore, index: Path, *, k: int, device: str) -> None:
        verify_checksums(index, kind="index")
        self.index, self.settings = open_index(index, datastore=datastore.folder)
        self.datastore, self.k, self.device = datastore, k, device

    def exact(self, queries: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids and distances of exact search."""
        return search_exact(queries, self.datastore, k=self.k, device=self.device)

    def __call__(self, queries: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids and distances of this engine."""
        if self.index is None:
            return self.exact(queries)
        return search_index(
            queries,
            self.index,
            self.datastore,
            k=self.k,
            n_probes=self.settings["n_probes"],
            rescore=self.settings["rescore"],
        )

    def recall(self, queries: NDArray[Any], ids: NDArray[np.int64]) -> float:
        """Return the share of the true neighbors of some queries that are among `ids`."""
        return 1.0 if self.index is None else recall(ids, self.exact(queries)[0])

    def settings_in_use(self) -> dict[str, Any]:
        """Return the settings of the search, read back from faiss."""
        if self.index is None:
            return {"engine": "exact"}
        in_use = {
            "engine": self.settings["engine"],
            "rescore": self.settings["rescore"],
            "n_probes": search_parameters(self.settings["n_probes"]).nprobe,
            "n_centroids": self.index.nlist,
        }
        if isinstance(self.index, faiss.IndexIVFPQ):
            in_use["code_bytes"] = self.index.pq.code_size
        return in_use


def _search_blocks(
    folder: Path, engine: _Engine, hidden: NDArray[Any], *, block_queries: int
) -> None:
    """Search the blocks that are not there yet, and publish each as soon as it is found."""
    blocks = _blocks(folder, len(hidden), block_queries)
    missing = [(path, rows) for path, rows in blocks if not path.is_file()]
    done = len(hidden) - sum(rows.stop - rows.start for _, rows in missing)
    progress = Progress("search", total=len(hidden), unit="queries", done=done)
    for path, rows in missing:
        ids, distances = engine(np.array(hidden[rows]))
        values = engine.datastore.values(ids)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=ids, distances=distances, values=values)
        done += len(ids)
        progress.update(done)
        stop_if_asked()


def _blocks(folder: Path, n_queries: int, block_queries: int) -> list[tuple[Path, slice]]:
    starts = range(0, n_queries, block_queries)
    return [
        (folder / f"block-{number:05d}.npz", slice(start, min(start + block_queries, n_queries)))
        for number, start in enumerate(starts)
    ]


def _read_blocks(folder: Path, *, n_queries: int, block_queries: int, k: int) -> Neighbors:
    neighbors = Neighbors(
        ids=np.empty((n_queries, k), dtype=np.int64),
        distances=np.empty((n_queries, k), dtype=np.float32),
        values=np.empty((n_queries, k), dtype=np.int32),
    )
    for path, rows in _blocks(folder, n_queries, block_queries):
        try:
            with np.load(path, allow_pickle=False) as block:
                for name in ("ids", "distances", "values"):
                    getattr(neighbors, name)[rows] = block[name]
        except Exception as error:  # zipfile, zlib and NumPy each have their own
            raise ArtifactError(
                f"{path} cannot be read as neighbors ({error}); {rebuild_hint(folder)}"
            ) from error
    return neighbors


def _recall_sample(n_queries: int, n_sample: int, *, seed: int) -> NDArray[np.int64]:
    generator = numpy_generator(seed, "recall")
    return np.sort(generator.choice(n_queries, min(n_sample, n_queries), replace=False))
