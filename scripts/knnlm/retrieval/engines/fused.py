"""The fused engine: exact neighbors of a datastore that is never stored.

A block of keys is encoded, compared with every query, and dropped; what is kept is the k nearest
so far of each query. Keys are rounded to the dtype of the datastore, and both engines take the
same steps, so the neighbors are those of exact search, to the bit on one device. The state is
published after each block, and a search that was interrupted goes on with the next one.

It costs the encoding once for each set of queries, and no disk: 2 x dim x n_entries bytes less.
Memory: the model, one block of keys in its dtype and in fp32, and 12 x k bytes for each query.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.encoder import SPLIT, Encoder, available_device, key_settings, open_encoder
from knnlm.retrieval.engines.exact import add_keys, check_products, check_queries, scorer_of
from knnlm.retrieval.engines.nearest import no_neighbors
from knnlm.retrieval.engines.scorers import Scorer
from knnlm.retrieval.engines.settings import check_engine
from knnlm.retrieval.neighbors import RECALL, blocks_of, write_block, write_recall
from knnlm.retrieval.parts import Part
from knnlm.retrieval.queries import searched_queries
from knnlm.runtime.artifacts import atomic_path, identity, read_manifest, require_origin
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import Target, making
from knnlm.runtime.signals import stop_if_asked

STATE = "nearest.npz"  # waits in the partial folder: the nearest so far, and of how many keys


def search_fused_part(
    target: Target,
    *,
    model: Path,
    tokens: Path,
    index: Path,
    queries: Path,
    datastore: Mapping[str, Any],
    search: Mapping[str, Any],
    part: Part,
) -> None:
    """Find the nearest entries of every query in the rows of a part, and publish them.

    Args:
        target: what is made; its seed is that of the datastore's share.
        model: the folder of the LM that the datastore would be built with.
        tokens: folder of the token streams; the train split is encoded.
        index: the folder that holds the settings of the engine: block_keys are encoded, compared
            and dropped together; a part has whole blocks.
        queries: the folder of the queries, made by the same model from any corpus.
        datastore: the entry of the config, see `open_encoder`; and `queries`, how many evenly
            spaced ones are searched, all if there is no number.
        search: the block of the config: k, neighbors of a query; block_queries, compared and
            written together; recall_sample, queries for which other engines measure their
            recall, which is 1 here; scores_mib, fp32 scores held at a time on a GPU.
        part: the rows that are encoded.

    Raises:
        ValueError: if a setting is wrong, or k is larger than the datastore would be.
        ArtifactError: if the queries are of another model.
    """
    engine, k = read_manifest(index, kind="index")["settings"], search["k"]
    check_engine(engine)
    metric = engine.get("metric", "l2")
    encoder, origin = open_encoder(model, tokens, datastore=datastore, seed=target.seed)
    require_origin(queries, kind="queries", role="model", expected=origin["model"])
    hidden, asked = searched_queries(queries, datastore["site"], datastore.get("queries"))
    name = f"the train split of {tokens}"
    check_queries(hidden[:1], encoder.entries, k=k, dim=encoder.dim, name=name)
    rows = part.rows(encoder.n_entries, unit=engine["block_keys"])
    folders = {"index": (index, "index"), "queries": (queries, "queries")}
    made_from = origin | {role: identity(at, kind=kind) for role, (at, kind) in folders.items()}
    settings = {**key_settings(datastore), "split": SPLIT, "k": k}
    with making(target, kind="neighbors_part", made_from=made_from, settings=settings) as made:
        blocks = dict(blocks_of(made.folder, len(hidden), search["block_queries"]))
        if not all(path.is_file() for path in blocks):
            tile_bytes = search["scores_mib"] << 20
            scorer = functools.partial(
                scorer_of, device=available_device(), tile_bytes=tile_bytes, metric=metric
            )
            nearest = _search(blocks, (encoder, rows, engine["block_keys"]), hidden, scorer, k=k)
            if metric == "ip":
                check_products(nearest[1], name=name)
        write_recall(made.folder / RECALL, np.arange(0), *no_neighbors(0, 0))
        (made.folder / STATE).unlink(missing_ok=True)
        made.contents |= {
            **asked,
            "block_queries": search["block_queries"],
            "k": k,
            "site": datastore["site"],
            "search": {"engine": "fused", "metric": metric},
            "recall_queries": min(search["recall_sample"], len(hidden)),
            "n_entries": encoder.n_entries,
            "entries": encoder.entries.described(),
            "rows": [rows.start, rows.stop],
        }


def _search(
    blocks: Mapping[Path, slice],
    keys: tuple[Encoder, range, int],
    hidden: NDArray[np.float32],
    scorer: Callable[[NDArray], Scorer],
    *,
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k nearest of all queries, publish them in the files of their blocks, return them."""
    nearest = no_neighbors(len(hidden), k)
    state = next(iter(blocks)).with_name(STATE)
    _find(nearest, keys, hidden, blocks.values(), scorer, state=state)
    for path, block in blocks.items():
        ids, distances = (array[block] for array in nearest)
        values = np.where(ids < 0, -1, keys[0].values(ids).astype(np.int32))
        write_block(path, {"ids": ids, "distances": distances, "values": values})
    return nearest


def _find(
    nearest: tuple[NDArray[np.int64], NDArray[np.float32]],
    keys: tuple[Encoder, range, int],
    hidden: NDArray[np.float32],
    blocks: Collection[slice],
    scorer: Callable[[NDArray], Scorer],
    *,
    state: Path,
) -> None:
    """Find the nearest of each query in place, block after block of keys; go on from a state.

    Args:
        nearest: ids and distances of all queries, missing at first.
        keys: their encoder, the rows to encode and the rows of a block.
        hidden: the queries.
        blocks: of queries.
        scorer: makes the scorer of a block of keys.
        state: file of the nearest among the keys that were compared so far.
    """
    ids, distances = nearest
    encoder, rows, block_keys = keys
    done = _read_state(state, ids, distances)
    progress = Progress("fused search", total=len(rows), unit="keys", done=done)
    for start in rows[done::block_keys]:
        stop = min(start + block_keys, rows.stop)
        block_scorer = scorer(encoder.keys(start, stop))
        for block in blocks:
            queries = np.array(hidden[block])
            add_keys(ids[block], distances[block], queries, start, block_scorer)
        done += stop - start
        with atomic_path(state) as temporary, temporary.open("wb") as file:
            np.savez(file, done=done, ids=ids, distances=distances)
        progress.update(done)
        stop_if_asked()


def _read_state(path: Path, ids: NDArray[np.int64], distances: NDArray[np.float32]) -> int:
    """Fill in the nearest that an interrupted job found; return how many keys it had compared."""
    if not path.is_file():
        return 0
    with np.load(path, allow_pickle=False) as state:
        ids[:], distances[:] = state["ids"], state["distances"]
        return int(state["done"])
