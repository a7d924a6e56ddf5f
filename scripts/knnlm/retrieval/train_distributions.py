"""What a kNN-LM says of the text that its datastore was made from: p_kNN of train positions.

An entry of the datastore is a query; its neighbors are those of the other entries, or it would
find itself at distance 0. What is kept of a distribution are its likeliest tokens and what it gives
the token that did follow: neighbors of a whole train split would take more than its datastore.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from knnlm.lm.objectives import DTYPES, KIND, POSITIONS
from knnlm.lm.windows import ShuffledWindows
from knnlm.retrieval.datastore import Datastore, open_datastore, verify_rows
from knnlm.retrieval.distribution import knn_distribution
from knnlm.retrieval.encoder import available_device
from knnlm.retrieval.engines.exact import check_search, search_exact
from knnlm.retrieval.interpolation import knn_log_probs
from knnlm.retrieval.neighbors import blocks_of
from knnlm.retrieval.tuning import Point, read_tuned
from knnlm.runtime.artifacts import ArtifactError, atomic_path, identity, save_array
from knnlm.runtime.blocks import join_blocks
from knnlm.runtime.making import Target, each_missing, making

KEPT = 32  # tokens of each distribution


def find_train_distributions(
    target: Target,
    *,
    datastore: Path,
    tuned: Path,
    search: Mapping[str, Any],
    windows: Sequence[tuple[int, int]],
) -> None:
    """Find p_kNN of the positions that are trained on, at the point that validation chose.

    Args:
        target: values and probabilities (n, m), likeliest first, target_probabilities and
            positions (n,); its seed is that of the trainings.
        datastore: with every position of the train split.
        tuned: the tuned point of its kNN-LM.
        search: block_queries, searched and published together; keys_mib; scores_mib.
        windows: of the trainings: tokens of a window, and how many windows are read.

    Raises:
        ArtifactError: if the datastore lacks positions, or the point is of another datastore.
        ValueError: if k is not below the number of entries.
    """
    store, chosen = open_datastore(datastore), read_tuned(tuned)
    verify_rows(store)
    if store.entries.share < 1:
        raise ArtifactError(
            f"expected {datastore} to hold every position of train, it holds a share of "
            f"{store.entries.share}; set the share of the datastore to 1"
        )
    if (named := chosen.names["datastore"]) != datastore.parent.name:
        raise ArtifactError(f"expected {tuned} to be tuned for {datastore}, it is for {named}")
    made_from = {role: store.made_from[role] for role in ("model", "tokens")}
    made_from["datastore"] = identity(datastore, kind="datastore")
    settings = {**chosen.point._asdict(), "kept": KEPT, "windows": [*map(list, windows)]}
    positions = positions_of(windows, n_tokens=store.n_entries + 1, seed=target.seed)
    with making(target, kind=KIND, made_from=made_from, settings=settings) as made:
        blocks = dict(blocks_of(made.folder, len(positions), search["block_queries"]))
        if not (made.folder / POSITIONS).is_file():  # written last
            for path in each_missing(
                {path: path for path in blocks}, label="search", name="blocks"
            ):
                found = distributions_of(store, positions[blocks[path]], chosen.point, search)
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, **found)
            join_blocks(made.folder, [*blocks], n_queries=len(positions), names=[*DTYPES])
            save_array(made.folder / POSITIONS, positions)
        for path in blocks:
            path.unlink(missing_ok=True)
        made.contents |= {"positions": len(positions), "kept": KEPT}


def positions_of(
    windows: Sequence[tuple[int, int]], *, n_tokens: int, seed: int
) -> NDArray[np.int64]:
    """Return the positions of a stream that trainings read, ascending.

    Args:
        windows: tokens of a window, and how many windows are read.
        n_tokens: of the stream.
        seed: of the trainings.
    """
    read = np.zeros(n_tokens, bool)
    for context, count in windows:
        starts = ShuffledWindows(n_tokens, context=context, seed=seed).starts(0, count)
        for start in np.unique(starts):
            read[start : start + context] = True
    return np.flatnonzero(read)


def distributions_of(
    store: Datastore, own: NDArray[np.int64], point: Point, search: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Return p_kNN of some entries among all others: see `DTYPES`.

    Args:
        store: the datastore.
        own: (n,), the entries that ask.
        point: k and temperature.
        search: keys_mib and scores_mib.
    """
    queries = store.keys(own)
    check_search(queries[:1], store, k=point.k + 1)
    ids, distances = search_exact(
        queries,
        store,
        k=point.k + 1,
        device=available_device(),
        slice_rows=max(1, (search["keys_mib"] << 20) // (4 * store.dim)),
        tile_bytes=search["scores_mib"] << 20,
    )
    ids, distances = without_itself(own, ids, distances)
    values, targets = store.values(ids), store.values(own)
    tokens, probabilities = knn_distribution(
        torch.from_numpy(distances), torch.from_numpy(values), temperature=point.temperature
    )
    width = max(0, KEPT - tokens.shape[1])  # where no query has so many
    tokens, probabilities = (
        torch.nn.functional.pad(one, (0, width)) for one in (tokens, probabilities)
    )
    likeliest = probabilities.topk(KEPT, dim=1)
    of_target = knn_log_probs(distances, values, targets, temperature=point.temperature)
    found = {
        "values": tokens.gather(1, likeliest.indices).numpy(),
        "probabilities": likeliest.values.numpy(),
        "target_probabilities": np.exp(of_target),
    }
    return {name: array.astype(DTYPES[name]) for name, array in found.items()}


def without_itself(
    own: NDArray[np.int64], ids: NDArray[np.int64], distances: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the neighbors of entries without the entry itself, (n, k), of (n, k + 1).

    Where more than k others have the same key, the entry may not be among them: then the last one
    is left out.
    """
    itself = ids == own[:, None]
    itself[~itself.any(axis=1), -1] = True
    shape = (len(ids), ids.shape[1] - 1)
    return ids[~itself].reshape(shape), distances[~itself].reshape(shape)
