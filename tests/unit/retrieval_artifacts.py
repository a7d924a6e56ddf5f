"""Small datastores for the tests of the retrieval wing, and the definition of a neighbor."""

from pathlib import Path

import numpy as np
import torch
from lm_artifacts import MODEL, VOCABULARY, write_tokenizer, write_tokens

from knnlm.lm.model import create_model, save_model
from knnlm.retrieval.datastore import Datastore, Shard
from knnlm.runtime.artifacts import identity, save_array, write_manifest


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


def write_model(folder, tokenizer, *, seed=0, scale=5.0):
    """Write a model artifact with random weights, scaled so that it is far from uniform."""
    folder.mkdir(parents=True)
    model = create_model(MODEL, vocabulary_size=VOCABULARY, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    save_model(model, folder)
    made_from = {"tokenizer": identity(tokenizer, kind="tokenizer")}
    write_manifest(folder, kind="model", settings={}, made_from=made_from, contents={})
    return folder


def write_inputs(folder):
    """Write tokenizer, tokens (train has 303) and a model; return their folders by role."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    return {
        "tokens": write_tokens(folder / "tokens", tokenizer),
        "model": write_model(folder / "model", tokenizer),
    }


def files_of(folder):
    """Return the bytes of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_datastore(folder, keys, *, rows_per_shard=256):
    """Write a datastore artifact that holds the given keys; its values count up."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(keys), rows_per_shard)):
        part = keys[first : first + rows_per_shard]
        values = np.arange(first, first + len(part)).astype(np.uint16)
        save_array(folder / f"shard-{number:05d}" / "datastore_keys.npy", part)
        save_array(folder / f"shard-{number:05d}" / "datastore_values.npy", values)
    contents = {
        "n_entries": len(keys),
        "dim": keys.shape[1],
        "dtype": str(keys.dtype),
        "values_dtype": "uint16",
        "rows_per_shard": rows_per_shard,
    }
    write_manifest(folder, kind="datastore", settings={}, made_from={}, contents=contents)
    return folder
