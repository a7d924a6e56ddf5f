"""Small datastores for the tests of the retrieval wing, and the definition of a neighbor."""

import numpy as np
import torch
from lm_artifacts import MODEL, VOCABULARY, write_tokenizer, write_tokens

from knnlm.lm.architecture import SITES
from knnlm.lm.model import create_model, save_model
from knnlm.lm.scoring import score_queries
from knnlm.retrieval.datastore import in_memory
from knnlm.retrieval.datastore_parts import build_datastore_part
from knnlm.retrieval.engines.inverted_file import encode_index_part, train_index
from knnlm.retrieval.engines.settings import INVERTED_FILES, build_index
from knnlm.retrieval.neighbors import merge_neighbors
from knnlm.retrieval.parts import Part, join_parts
from knnlm.retrieval.sampling import Entries
from knnlm.retrieval.search import search_part
from knnlm.runtime.artifacts import identity, save_array, write_manifest
from knnlm.runtime.making import Target

TILES = {"keys_mib": 1, "scores_mib": 1}  # of a search


def datastore_of(keys, values=None, *, rows_per_shard=64):
    """Return a datastore that holds the given arrays, cut into shards."""
    if values is None:
        values = np.arange(len(keys), dtype=np.uint16)
    return in_memory(keys, values, rows_per_shard=rows_per_shard)


def nearest_by_definition(queries, keys, k, metric="l2"):
    """Return ids and distances of the k nearest, in float64; smaller ids first."""
    queries, keys = queries[:, None].astype(np.float64), keys[None].astype(np.float64)
    distances = ((queries - keys) ** 2 if metric == "l2" else -(queries * keys)).sum(axis=2)
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


def write_datastore(folder, keys, *, rows_per_shard=256, settings=None, made_from=None):
    """Write a datastore artifact that holds the given keys; its values count up."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(keys), rows_per_shard)):
        part = keys[first : first + rows_per_shard]
        values = np.arange(first, first + len(part)).astype(np.uint16)
        save_array(folder / f"shard-{number:05d}" / "datastore_keys.npy", part)
        save_array(folder / f"shard-{number:05d}" / "datastore_values.npy", values)
    contents = {
        "n_entries": len(keys),
        "entries": Entries(len(keys)).described(),
        "dim": keys.shape[1],
        "dtype": str(keys.dtype),
        "values_dtype": "uint16",
        "rows_per_shard": rows_per_shard,
    }
    write_manifest(
        folder,
        kind="datastore",
        settings=settings or {},
        made_from=made_from or {},
        contents=contents,
    )
    return folder


def to_make(output, *, seed=0):
    """Return an artifact as the target of a job."""
    return Target(output, "f", {"seed": str(seed)})


def write_scored(output, *, model, tokens, queries, split="validation"):
    """Write the queries of a split, scored by a model, with hidden states of every site."""
    target = Target(output, "f", {"split": split})
    score_queries(target, model=model, tokens=tokens, queries=queries, sites=[*SITES])
    return output


def make_datastore(output, *, model, tokens, parts=1, seed=0, **datastore):
    """Build a datastore as the workflow does: part by part, then joined."""
    folders = [output.with_name(f"{output.name}-part{number}") for number in range(parts)]
    inputs = {"model": model, "tokens": tokens, "datastore": datastore}
    for number, folder in enumerate(folders):
        build_datastore_part(to_make(folder, seed=seed), part=Part(number, parts), **inputs)
    join_parts(to_make(output, seed=seed), kind="datastore", parts=folders)
    return output


def make_index(output, *, datastore, index, seed=0, parts=1):
    """Build an index as the workflow does: trained, encoded part by part, joined."""
    head, folders = [], []
    if index["engine"] in INVERTED_FILES:
        head = [output.with_name(f"{output.name}-trained")]
        train_index(to_make(head[0], seed=seed), datastore=datastore, index=index)
        folders = [output.with_name(f"{output.name}-part{number}") for number in range(parts)]
        for number, folder in enumerate(folders):
            part = Part(number, parts)
            encode_index_part(to_make(folder), datastore=datastore, head=head[0], part=part)
    target = to_make(output, seed=seed)
    build_index(target, index=index, datastore=[datastore], head=head, parts=folders)
    return output


def find_neighbors(output, *, datastore, index, queries, parts=1, n_queries=None, **search):
    """Search as the workflow does: part by part, then merged."""
    folders = [output.with_name(f"{output.name}-part{number}") for number in range(parts)]
    inputs = {"datastore": datastore, "index": index, "queries": queries, "n_queries": n_queries}
    for number, folder in enumerate(folders):
        search_part(to_make(folder), part=Part(number, parts), search=TILES | search, **inputs)
    merge_neighbors(to_make(output), parts=folders)
    return output


def assert_neighbors_agree(ids, expected_ids, queries, keys, *, within=1e-5):
    """Check that ids are the expected ones, but where exact distances are this close.

    Args:
        ids: (n_queries, k) that were found.
        expected_ids: (n_queries, k).
        queries: (n_queries, dim).
        keys: (n_keys, dim), to which the ids belong.
        within: relative difference of squared distances that counts as a tie.
    """
    assert ids.shape == expected_ids.shape
    for query, found, expected in zip(queries.astype(np.float64), ids, expected_ids, strict=True):
        assert len(set(found)) == len(found)
        at = np.flatnonzero(found != expected)
        here, there = (
            ((keys[some[at]].astype(np.float64) - query) ** 2).sum(axis=1)
            for some in (found, expected)
        )
        np.testing.assert_allclose(here, there, rtol=within)
