"""Searching nested shares of one datastore, block by block of queries, each published whole.

All shares are searched at once, for about the cost of one search of the whole: see
`knnlm.retrieval.engines.nested`. A search that was interrupted goes on with the missing blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Datastore, open_datastore, verify_rows
from knnlm.retrieval.encoder import available_device
from knnlm.retrieval.engines.exact import check_products, check_queries, full_distances
from knnlm.retrieval.engines.inverted_file import open_index
from knnlm.retrieval.engines.nearest import NO_LEVEL
from knnlm.retrieval.engines.nested import search_nested, search_nested_lists
from knnlm.retrieval.engines.settings import INVERTED_FILES, check_engine
from knnlm.retrieval.neighbors import ROUGH, blocks_of, write_block
from knnlm.retrieval.queries import searched_queries
from knnlm.retrieval.sampling import Entries
from knnlm.retrieval.shares import KIND, LEVELS, share_levels
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.making import Target, each_missing, making

Search = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]


def search_shares(
    target: Target,
    *,
    datastore: Path,
    index: Path,
    queries: Path,
    search: Mapping[str, Any],
    shares: Sequence[float],
    n_queries: int | None = None,
) -> None:
    """Find the nearest entries of every query in each of some nested shares, and publish them.

    Args:
        target: what is made.
        datastore: its folder; its key site is searched.
        index: the folder of its index: exact, or an inverted file, of which a share has the
            clusters and the code of the whole.
        queries: the folder of the queries, made by the same model from any corpus.
        search: the block of the config: k, block_queries, keys_mib and scores_mib as of
            `knnlm.retrieval.search.search_part`.
        shares: of the positions of the stream, ascending, none above that of the datastore.
        n_queries: how many evenly spaced queries are searched; all if None.

    Raises:
        ValueError: if a share holds fewer entries than k, or shares do not ascend.
        ArtifactError: if an artifact is not what was written, or was made from another one.
    """
    store = open_datastore(datastore)
    verify_rows(store)
    require_origin(queries, kind="queries", role="model", expected=store.made_from["model"])
    hidden, asked = searched_queries(queries, store.settings["site"], n_queries)
    levels = share_levels(store.entries, shares)
    smallest = Entries(store.entries.n_positions, shares[0], store.entries.seed)
    check_queries(hidden[:1], smallest, k=search["k"], dim=store.dim, name=str(datastore))
    settings = read_manifest(index, kind="index")["settings"]
    find = _search_of(store, index, settings, levels, search)
    made_from = {
        "datastore": identity(datastore, kind="datastore"),
        "index": identity(index, kind="index"),
        "queries": identity(queries, kind="queries"),
    }
    of_all = {"k": search["k"], "shares": [*shares], "seed": target.seed}
    with making(target, kind=KIND, made_from=made_from, settings=of_all) as made:
        files = blocks_of(made.folder, len(hidden), search["block_queries"])
        for rows in each_missing({r.start: p for p, r in files}, label="search", name="blocks"):
            path, block = files[rows // search["block_queries"]]
            write_block(path, find(np.array(hidden[block])))
        made.contents |= {
            **asked,
            "block_queries": search["block_queries"],
            "k": search["k"],
            "shares": [*shares],
            "site": store.settings["site"],
            "search": {name: settings[name] for name in IN_USE if name in settings},
            "n_entries": store.n_entries,
            "entries": store.entries.described(),
        }


IN_USE = ("engine", "metric", "rescore", "n_probes", "n_centroids", "code_bytes")


def _search_of(
    store: Datastore,
    index: Path,
    settings: Mapping[str, Any],
    levels: NDArray[np.uint8],
    search: Mapping[str, Any],
) -> Search:
    """Return the function that finds a block of neighbors, as the manifest of the index says."""
    check_engine(settings)
    k, metric = search["k"], settings.get("metric", "l2")
    n_shares = int(levels.max(initial=0, where=levels < NO_LEVEL)) + 1
    inverted = settings["engine"] in INVERTED_FILES
    of_levels = [levels == level for level in range(n_shares)] if inverted else []
    lists = [open_index(index, datastore=store, chosen=chosen) for chosen in of_levels]
    tiles = {
        "slice_rows": max(1, (search["keys_mib"] << 20) // (4 * store.dim)),
        "tile_bytes": search["scores_mib"] << 20,
        "device": available_device(),
    }

    def find(queries: NDArray[Any]) -> dict[str, NDArray[Any]]:
        found = {}
        if inverted:
            probes = settings["n_probes"]
            ids, distances = search_nested_lists(queries, lists, store, k=k, n_probes=probes)
            if settings["rescore"]:
                found = {ROUGH: distances}
                distances = full_distances(queries, store, ids, metric=metric)
        else:
            ids, distances = search_nested(queries, store, levels, k=k, metric=metric, **tiles)
        if metric == "ip":
            check_products(distances, name=str(store.folder))
        values = store.values(ids)
        of_found = np.where(ids < 0, NO_LEVEL, levels[ids])
        ids = ids.astype(np.int32) if store.n_entries <= np.iinfo(np.int32).max else ids
        found |= {"ids": ids, "distances": distances, "values": values}
        return found | {LEVELS: of_found.astype(np.uint8)}

    return find
