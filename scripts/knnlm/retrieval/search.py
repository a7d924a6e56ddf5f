"""Searching one part of a stored datastore: block by block of queries, each published whole.

A search that was interrupted goes on with the missing blocks. Memory: that of the engine (see
`knnlm.retrieval.engines.exact` and `open_index`) and the neighbors of one block of queries.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.lm.scoring import load_queries
from knnlm.retrieval.datastore import Datastore, open_datastore, verify_rows
from knnlm.retrieval.encoder import available_device
from knnlm.retrieval.engines.exact import check_search, search_exact, squared_distances
from knnlm.retrieval.engines.inverted_file import open_index, search_index, search_parameters
from knnlm.retrieval.engines.nearest import no_neighbors
from knnlm.retrieval.engines.settings import INVERTED_FILES
from knnlm.retrieval.neighbors import RECALL, ROUGH, blocks_of, write_block, write_recall
from knnlm.retrieval.parts import Part
from knnlm.runtime.artifacts import identity, read_manifest, require_origin, write_manifest
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import partial_folder, publish
from knnlm.runtime.seeds import numpy_generator
from knnlm.runtime.signals import stop_if_asked


def search_part(
    *,
    output: Path,
    fingerprint: str,
    datastore: Path,
    index: Path,
    queries: Path,
    k: int,
    block_queries: int,
    recall_sample: int,
    keys_mib: int,
    scores_mib: int,
    seed: int,
    part: Part,
    device: str | None = None,
) -> None:
    """Find the nearest entries of every query in the rows of a part, and publish them.

    Args:
        output: the folder to make.
        fingerprint: names the folder in which finished blocks wait.
        datastore: the folder of the datastore; its key site is searched.
        index: the folder of its index, which says the engine and its settings.
        queries: the folder of the queries, made by the same model from the same corpus.
        k: neighbors of a query.
        block_queries: queries searched and published together.
        recall_sample: queries on which an approximate engine is compared with exact search.
        keys_mib: keys compared at a time, in fp32.
        scores_mib: fp32 scores held at a time on a GPU.
        seed: of that sample.
        part: the rows that are searched.
        device: of the engine `exact`; None takes a GPU if there is one. An inverted file is
            searched on the CPU, its recall sample too: such a job asks for no GPU.

    Raises:
        ValueError: if k is larger than the datastore.
        ArtifactError: if an artifact is not what was written, or was made from another one.
    """
    store = open_datastore(datastore).part(part)
    verify_rows(store)
    for role in ("model", "tokens"):
        require_origin(queries, kind="queries", role=role, expected=store.made_from[role])
    tiles = {
        "slice_rows": max(1, (keys_mib << 20) // (4 * store.dim)),
        "tile_bytes": scores_mib << 20,
    }
    engine = _Engine(store, index, k=k, tiles=tiles, device=device)
    hidden = load_queries(queries).hidden(store.settings["site"])
    check_search(hidden[:1], store, k=k)
    made_from = {
        "datastore": identity(datastore, kind="datastore"),
        "index": identity(index, kind="index"),
        "queries": identity(queries, kind="queries"),
    }
    partial = partial_folder(output, fingerprint, made_from)
    _search_blocks(partial, engine, hidden, block_queries=block_queries)
    chosen = _recall_sample(len(hidden), recall_sample, seed=seed)
    _write_recall(partial / RECALL, engine, hidden, chosen)
    write_manifest(
        partial,
        kind="neighbors_part",
        settings={"k": k, "recall_sample": recall_sample, "seed": seed},
        made_from=made_from,
        contents={
            "n_queries": len(hidden),
            "block_queries": block_queries,
            "k": k,
            "site": store.settings["site"],
            "search": engine.settings_in_use(),
            "recall_queries": len(chosen),
            "n_entries": store.n_entries,
            "rows": [store.rows.start, store.rows.stop],
        },
    )
    publish(partial, output)


class _Engine:
    """One way to search the rows of a part, as the manifest of the index says."""

    def __init__(
        self,
        datastore: Datastore,
        index: Path,
        *,
        k: int,
        tiles: dict[str, int],
        device: str | None,
    ) -> None:
        self.settings = read_manifest(index, kind="index")["settings"]
        self.datastore, self.k, self.tiles = datastore, k, tiles
        if self.settings["engine"] in INVERTED_FILES:
            self.index, self.device = open_index(index, datastore=datastore), "cpu"
        else:
            self.index, self.device = None, device or available_device()

    def exact(self, queries: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids and distances of exact search."""
        return search_exact(queries, self.datastore, k=self.k, device=self.device, **self.tiles)

    def __call__(self, queries: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the arrays of a block of neighbors that this engine finds.

        An engine that computes distances again chooses neighbors by rough ones. They are kept
        where parts are merged, so that the number of parts changes no neighbor.
        """
        store, rough = self.datastore, {}
        if self.index is None:
            ids, distances = self.exact(queries)
        else:
            again, alone = self.settings["rescore"], len(store.rows) == store.n_entries
            probes = {"k": self.k, "n_probes": self.settings["n_probes"]}
            found = search_index(queries, self.index, store, rescore=again and alone, **probes)
            ids, distances = found
            if again and not alone:
                rough = {ROUGH: distances}
                distances = squared_distances(queries, store, ids)
        return {"ids": ids, "distances": distances, "values": store.values(ids), **rough}

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
    blocks = blocks_of(folder, len(hidden), block_queries)
    missing = [(path, rows) for path, rows in blocks if not path.is_file()]
    done = len(hidden) - sum(rows.stop - rows.start for _, rows in missing)
    progress = Progress("search", total=len(hidden), unit="queries", done=done)
    for path, rows in missing:
        write_block(path, engine(np.array(hidden[rows])))
        done += rows.stop - rows.start
        progress.update(done)
        stop_if_asked()


def _write_recall(
    path: Path, engine: _Engine, hidden: NDArray[Any], chosen: NDArray[np.int64]
) -> None:
    """Keep what exact search finds for some queries; nothing if the engine is exact itself."""
    if not path.is_file():
        exact = engine.index is None
        found = no_neighbors(0, 0) if exact else engine.exact(np.array(hidden[chosen]))
        write_recall(path, chosen, *found)


def _recall_sample(n_queries: int, n_sample: int, *, seed: int) -> NDArray[np.int64]:
    generator = numpy_generator(seed, "recall")
    return np.sort(generator.choice(n_queries, min(n_sample, n_queries), replace=False))
