"""Searching one part of a stored datastore: block by block of queries, each published whole.

A search that was interrupted goes on with the missing blocks. Memory: that of the engine (see
`knnlm.retrieval.engines.exact` and `open_index`) and the neighbors of one block of queries.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Datastore, open_datastore, verify_rows
from knnlm.retrieval.encoder import available_device
from knnlm.retrieval.engines.exact import (
    check_products,
    check_search,
    full_distances,
    search_exact,
)
from knnlm.retrieval.engines.inverted_file import open_index, search_index, search_parameters
from knnlm.retrieval.engines.nearest import no_neighbors
from knnlm.retrieval.engines.settings import INVERTED_FILES, check_engine
from knnlm.retrieval.neighbors import (
    RECALL,
    ROUGH,
    blocks_of,
    by_distance,
    write_block,
    write_recall,
)
from knnlm.retrieval.parts import Part
from knnlm.retrieval.queries import searched_queries
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import Target, making
from knnlm.runtime.seeds import numpy_generator
from knnlm.runtime.signals import stop_if_asked


def search_part(
    target: Target,
    *,
    datastore: Path,
    index: Path,
    queries: Path,
    search: Mapping[str, Any],
    part: Part,
    n_queries: int | None = None,
) -> None:
    """Find the nearest entries of every query in the rows of a part, and publish them.

    Args:
        target: what is made; its seed is that of the sample on which recall is measured.
        datastore: the folder of the datastore; its key site is searched.
        index: the folder of its index, which says the engine and its settings.
        queries: the folder of the queries, made by the same model from any corpus.
        search: the block of the config: k, neighbors of a query; block_queries, searched and
            published together; recall_sample, queries on which an approximate engine is compared
            with exact search; keys_mib, keys compared at a time, in fp32; scores_mib, fp32 scores
            held at a time on a GPU.
        part: the rows that are searched.
        n_queries: how many evenly spaced queries are searched; all if None.

    Raises:
        ValueError: if k is larger than the datastore.
        ArtifactError: if an artifact is not what was written, or was made from another one.
    """
    store = open_datastore(datastore).part(part)
    verify_rows(store)
    model = store.made_from["model"]
    require_origin(queries, kind="queries", role="model", expected=model)
    engine = _Engine(store, index, search)
    hidden, asked = searched_queries(queries, store.settings["site"], n_queries)
    check_search(hidden[:1], store, k=search["k"])
    made_from = {
        "datastore": identity(datastore, kind="datastore"),
        "index": identity(index, kind="index"),
        "queries": identity(queries, kind="queries"),
    }
    settings = {name: search[name] for name in ("k", "recall_sample")} | {"seed": target.seed}
    with making(target, kind="neighbors_part", made_from=made_from, settings=settings) as made:
        _search_blocks(made.folder, engine, hidden, block_queries=search["block_queries"])
        chosen = _recall_sample(len(hidden), search["recall_sample"], seed=target.seed)
        _write_recall(made.folder / RECALL, engine, hidden, chosen)
        made.contents |= {
            **asked,
            "block_queries": search["block_queries"],
            "k": search["k"],
            "site": store.settings["site"],
            "search": engine.settings_in_use(),
            "recall_queries": len(chosen),
            "n_entries": store.n_entries,
            "entries": store.entries.described(),
            "rows": [store.rows.start, store.rows.stop],
        }


class _Engine:
    """One way to search the rows of a part, as the manifest of the index says.

    An inverted file is searched on the CPU, its recall sample too: such a job asks for no GPU.
    """

    def __init__(self, datastore: Datastore, index: Path, search: Mapping[str, Any]) -> None:
        self.settings = read_manifest(index, kind="index")["settings"]
        check_engine(self.settings)
        self.datastore, self.k = datastore, search["k"]
        self.metric = self.settings.get("metric", "l2")
        self.tiles = {
            "slice_rows": max(1, (search["keys_mib"] << 20) // (4 * datastore.dim)),
            "tile_bytes": search["scores_mib"] << 20,
        }
        if self.settings["engine"] in INVERTED_FILES:
            self.index, self.device = open_index(index, datastore=datastore), "cpu"
        else:
            self.index, self.device = None, available_device()

    def exact(self, queries: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids and distances of exact search."""
        chosen = {"device": self.device, "metric": self.metric, **self.tiles}
        return search_exact(queries, self.datastore, k=self.k, **chosen)

    def __call__(self, queries: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the arrays of a block of neighbors that this engine finds.

        An engine that computes distances again chooses neighbors by rough ones. They are kept,
        also so that the number of parts changes no neighbor.
        """
        store, rough = self.datastore, {}
        if self.index is None:
            ids, distances = self.exact(queries)
        else:
            probes = {"k": self.k, "n_probes": self.settings["n_probes"]}
            ids, distances = search_index(queries, self.index, store, **probes)
            if self.settings["rescore"]:
                rough = {ROUGH: distances}
                distances = full_distances(queries, store, ids, metric=self.metric)
            if self.metric == "ip":
                check_products(distances, name=str(store.folder))
        found = {"ids": ids, "distances": distances, "values": store.values(ids), **rough}
        return by_distance(found)

    def settings_in_use(self) -> dict[str, Any]:
        """Return the settings of the search, read back from faiss."""
        if self.index is None:
            return {"engine": "exact", "metric": self.metric}
        in_use = {
            "engine": self.settings["engine"],
            "metric": "ip" if self.index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2",
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
