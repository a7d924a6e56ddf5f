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

import numpy as np
from numpy.typing import NDArray

from knnlm.lm.scoring import load_queries
from knnlm.retrieval.encoder import Encoder, available_device, open_encoder
from knnlm.retrieval.engines.exact import add_keys, check_queries, scorer_of
from knnlm.retrieval.engines.nearest import no_neighbors
from knnlm.retrieval.engines.scorers import Scorer
from knnlm.retrieval.neighbors import RECALL, blocks_of, write_block, write_recall
from knnlm.retrieval.parts import Part
from knnlm.runtime.artifacts import atomic_path, identity, require_origin, write_manifest
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import partial_folder, publish
from knnlm.runtime.signals import stop_if_asked

STATE = "nearest.npz"  # waits in the partial folder: the nearest so far, and of how many keys


def search_fused_part(
    *,
    output: Path,
    fingerprint: str,
    model: Path,
    tokens: Path,
    index: Path,
    queries: Path,
    site: str,
    stride: int,
    dtype: str,
    block_keys: int,
    k: int,
    block_queries: int,
    recall_sample: int,
    scores_mib: int,
    part: Part,
    device: str | None = None,
) -> None:
    """Find the nearest entries of every query in the rows of a part, and publish them.

    Args:
        output: the folder to make.
        fingerprint: names the folder in which the state waits.
        model: the folder of the LM that the datastore would be built with.
        tokens: folder of the token streams; the train split is encoded.
        index: the folder that holds the settings of the engine.
        queries: the folder of the queries, made by the same model from the same corpus.
        site: where in the last block the key is taken.
        stride: tokens a window moves on.
        dtype: that keys are rounded to, float16 or float32.
        block_keys: keys encoded, compared and dropped together; a part has whole blocks.
        k: neighbors of a query.
        block_queries: queries compared, and written, together.
        recall_sample: queries for which others measure their recall; here it is 1.
        scores_mib: fp32 scores held at a time on a GPU.
        part: the rows that are encoded.
        device: None takes a GPU if there is one.

    Raises:
        ValueError: if a setting is wrong, or k is larger than the datastore would be.
        ArtifactError: if the queries are of another model or corpus.
    """
    device = device or available_device()
    settings = {"site": site, "stride": stride, "dtype": dtype, "split": "train"}
    encoder, origin = open_encoder(model, tokens, **settings, device=device)
    for role, expected in origin.items():
        require_origin(queries, kind="queries", role=role, expected=expected)
    hidden = load_queries(queries).hidden(site)
    sizes = {"n_entries": encoder.n_entries, "dim": encoder.dim}
    check_queries(hidden[:1], k=k, name=f"the train split of {tokens}", **sizes)
    rows = part.rows(encoder.n_entries, unit=block_keys)
    made_from = {
        **origin,
        "index": identity(index, kind="index"),
        "queries": identity(queries, kind="queries"),
    }
    partial = partial_folder(output, fingerprint, made_from)
    blocks = dict(blocks_of(partial, len(hidden), block_queries))
    if not all(path.is_file() for path in blocks):
        scorer = functools.partial(scorer_of, device=device, tile_bytes=scores_mib << 20)
        _search(blocks, (encoder, rows, block_keys), hidden, scorer, k=k)
    write_recall(partial / RECALL, np.arange(0), *no_neighbors(0, 0))
    (partial / STATE).unlink(missing_ok=True)
    write_manifest(
        partial,
        kind="neighbors_part",
        settings={**settings, "k": k},
        made_from=made_from,
        contents={
            "n_queries": len(hidden),
            "block_queries": block_queries,
            "k": k,
            "site": site,
            "search": {"engine": "fused"},
            "recall_queries": min(recall_sample, len(hidden)),
            "n_entries": encoder.n_entries,
            "rows": [rows.start, rows.stop],
        },
    )
    publish(partial, output)


def values_of(stream: NDArray[np.unsignedinteger], ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the token after each entry of a stream, in the shape of `ids`; -1 where that is -1."""
    values = np.full(ids.shape, -1, dtype=np.int32)
    values[ids >= 0] = stream[ids[ids >= 0] + 1]
    return values


def _search(
    blocks: Mapping[Path, slice],
    keys: tuple[Encoder, range, int],
    hidden: NDArray[np.float32],
    scorer: Callable[[NDArray], Scorer],
    *,
    k: int,
) -> None:
    """Find the k nearest of all queries, and publish them in the files of their blocks."""
    nearest = no_neighbors(len(hidden), k)
    state = next(iter(blocks)).with_name(STATE)
    _find(nearest, keys, hidden, blocks.values(), scorer, state=state)
    for path, block in blocks.items():
        ids, distances = (array[block] for array in nearest)
        values = values_of(keys[0].stream, ids)
        write_block(path, {"ids": ids, "distances": distances, "values": values})


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
