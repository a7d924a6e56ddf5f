"""What a datastore, a search and an LM cost: bytes on disk and counted FLOPs.

FLOPs are those of matrix products, two for a multiplication and an addition, for one query: a
token of the text. Those of search are the ones its method must do, whatever the program.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from knnlm.experiments.shared.flops import forward_flops, update_flops, window, without_data
from knnlm.lm.anatomy import context
from knnlm.retrieval.datastore import VALUES
from knnlm.retrieval.engines.settings import CODE_BITS, INVERTED_FILES
from knnlm.runtime.artifacts import read_manifest

ADDED = "flops_per_query_added"  # to those of the LM


class Flops(NamedTuple):
    """Of a token: to compute its distribution, and to train on it, both in FLOPs."""

    query: float
    training: float


def flops_of_model(lm: nn.Module) -> Flops:
    """Return the FLOPs of an LM, the mean over the tokens of a window as long as its context."""
    length, hollow = context(lm), without_data(lm)
    query = forward_flops(hollow, **window(length))
    return Flops(query / length, update_flops(hollow, **window(length)) / length)


def flops_of_search(index: Mapping[str, Any], *, n_entries: int, dim: int, k: int) -> float:
    """Return the FLOPs of finding and weighing the neighbors of one query.

    exact compares it with every key, and so does fused, whose encoding of the keys counts no more
    here than that of a datastore. ivf_flat compares it with every centroid and with the keys
    of the nearest clusters, taken to be of equal size. ivfpq fills a table of distances to code
    centroids for each cluster and adds an entry of it for each byte of each code; `rescore`
    compares the k neighbors once more.

    Args:
        index: the block of the config.
        n_entries: of the datastore.
        dim: of a key.
        k: neighbors.
    """
    compare = 2 * dim
    if index["engine"] not in INVERTED_FILES:
        return float(compare * n_entries)
    scanned = n_entries * index["n_probes"] / index["n_centroids"]
    again = compare * k if index["rescore"] else 0
    if index["engine"] == "ivf_flat":
        return compare * (index["n_centroids"] + scanned) + again
    tables = index["n_probes"] * compare * 2**CODE_BITS
    return compare * index["n_centroids"] + tables + scanned * index["code_bytes"] + again


def storage_of(datastore: Path, indexes: Mapping[str, Path]) -> dict[str, int]:
    """Return the bytes of each way to store a datastore for search.

    Args:
        datastore: its folder; the size of keys in another dtype than theirs is computed.
        indexes: folders by name; exact ones are left out, as they store nothing more.

    Returns:
        keys_{dtype}_and_values for float16 and float32, and {index}_and_values: the index and
        the values, without the keys that an index with `rescore` reads again. The fused engine
        has the values alone: the tokens that it encodes.
    """
    manifest = read_manifest(datastore, kind="datastore")
    n_keys = manifest["contents"]["n_entries"] * manifest["contents"]["dim"]
    files = manifest["files"].items()
    values = sum(file["bytes"] for name, file in files if name.endswith(VALUES))
    found = {
        f"keys_{dtype}_and_values": n_keys * np.dtype(dtype).itemsize + values
        for dtype in ("float16", "float32")
    }
    for name, folder in indexes.items():
        index = read_manifest(folder, kind="index")
        if index["contents"]["engine"] != "exact":
            size = sum(file["bytes"] for file in index["files"].values())
            found[f"{name}_and_values"] = size + values
    return found
