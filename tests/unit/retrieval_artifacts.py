"""Small datastores for the tests of the retrieval wing, and the definition of a neighbor."""

from pathlib import Path

import numpy as np

from knnlm.retrieval.datastore import Datastore, Shard


def datastore_of(keys, values=None, *, rows_per_shard=64, folder="memory"):
    """Return a datastore that holds the given arrays, cut into shards."""
    if values is None:
        values = np.arange(len(keys), dtype=np.uint16)
    firsts = range(0, len(keys), rows_per_shard)
    return Datastore(
        folder=Path(folder),
        shards=tuple(
            Shard(i, keys[i : i + rows_per_shard], values[i : i + rows_per_shard]) for i in firsts
        ),
        n_entries=len(keys),
        dim=keys.shape[1],
        dtype=keys.dtype,
        rows_per_shard=rows_per_shard,
        settings={},
        made_from={},
    )


def nearest_by_definition(queries, keys, k):
    """Return ids and squared distances of the k nearest, in float64; smaller ids first."""
    differences = queries[:, None].astype(np.float64) - keys[None].astype(np.float64)
    distances = (differences**2).sum(axis=2)
    ids = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(distances, ids, axis=1)
