"""Neighbors in eight nested shares of a datastore, against one search of the whole.

Both are the whole step: keys are read and verified, distances computed, blocks written and the
artifact published with its checksums. The goal is 1.6 times one search of the whole at most; a
search of each share would take 4.5 times.

    .venv/bin/python benchmarks/nested_shares.py [--keys 101000] [--queries 8000]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from exact_search import clustered_keys
from ratio_table import Row, print_table

from knnlm.lm.scoring import DTYPES
from knnlm.retrieval.engines.settings import build_index
from knnlm.retrieval.neighbors import merge_neighbors
from knnlm.retrieval.parts import Part
from knnlm.retrieval.sampling import Entries
from knnlm.retrieval.search import search_part
from knnlm.retrieval.share_search import search_shares
from knnlm.runtime.artifacts import save_array, write_manifest
from knnlm.runtime.making import Target

SITE = "ffn_input_after_layer_norm"
SHARES = [eighth / 8 for eighth in range(1, 9)]
SEARCH = {
    "k": 1024,
    "block_queries": 2048,
    "keys_mib": 512,
    "scores_mib": 2048,
    "recall_sample": 1,
}
REPETITIONS = 3  # of each, in turn; the fastest counts, because other work may share the cores


def to_make(output: Path) -> Target:
    return Target(output, "bench", {"seed": "0"})


def write_store(folder: Path, n_keys: int) -> None:
    """Write a datastore of one shard, as the workflow does."""
    keys = clustered_keys(n_keys, seed=0)
    save_array(folder / "shard-00000/datastore_keys.npy", keys)
    save_array(folder / "shard-00000/datastore_values.npy", np.zeros(n_keys, np.uint16))
    contents = {
        "n_entries": n_keys,
        "entries": Entries(n_keys).described(),
        "dim": keys.shape[1],
        "dtype": "float16",
        "values_dtype": "uint16",
        "rows_per_shard": n_keys,
    }
    write_manifest(
        folder,
        kind="datastore",
        settings={"site": SITE},
        made_from={"model": "bench"},
        contents=contents,
    )


def write_queries(folder: Path, n_queries: int) -> None:
    """Write queries of which nothing but the hidden states counts."""
    hidden = clustered_keys(n_queries, seed=1).astype(np.float32)
    save_array(folder / f"{SITE}.npy", hidden)
    for column, dtype in DTYPES.items():
        save_array(folder / f"{column}.npy", np.zeros(n_queries, dtype))
    write_manifest(
        folder,
        kind="queries",
        settings={},
        made_from={"model": "bench"},
        contents={"queries": n_queries, "sites": [SITE]},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=101_000)
    parser.add_argument("--queries", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder / "datastore", options.keys)
        write_queries(folder / "queries", options.queries)
        exact = {"engine": "exact", "metric": "l2"}
        datastore = [folder / "datastore"]
        build_index(to_make(folder / "index"), index=exact, datastore=datastore, head=[], parts=[])
        inputs = {role: folder / role for role in ("datastore", "index", "queries")}

        def whole() -> None:
            search_part(to_make(folder / "part"), part=Part(0, 1), search=SEARCH, **inputs)
            merge_neighbors(to_make(folder / "whole"), parts=[folder / "part"])

        def nested() -> None:
            search_shares(to_make(folder / "shares"), shares=SHARES, search=SEARCH, **inputs)

        cpu = {"whole": [], "nested": []}
        for _ in range(REPETITIONS):
            for step in (whole, nested):
                start = time.process_time()  # of all threads: other work does not count
                step()
                cpu[step.__name__].append(time.process_time() - start)
    print_table(
        f"Nested shares, {options.keys:,} keys x 128, {options.queries:,} queries, k {SEARCH['k']}",
        [
            Row(
                "eight shares at once, one search of the whole: CPU s",
                min(cpu["nested"]),
                min(cpu["whole"]),
                "<= 1.6",
            )
        ],
        f"{options.threads} threads.",
    )


if __name__ == "__main__":
    main()
