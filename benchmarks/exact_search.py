"""Exact search against bare faiss IndexFlatL2 and IndexFlatIP on the same keys.

Prints one table: queries a second of both and their ratio, which should be at least 0.95, though
ours reads fp16 shards, computes distances again by direct differences and orders ties; and the
memory that ours takes beyond its results, which should stay below 1 GB.

    .venv/bin/python benchmarks/exact_search.py [--keys 596000] [--queries 4096]
"""

import argparse
import os
import sys
import threading
import time
from pathlib import Path

import faiss
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.retrieval.datastore import Datastore, in_memory
from knnlm.retrieval.engines.exact import search_exact

K = 1024
DIM = 128
BLOCK_QUERIES = 2048  # as at the scale `cpu`
ROWS_PER_SHARD = 65_536  # 16 MiB of fp16 keys, as at the scale `cpu`
REPETITIONS = 3  # of each, in turn; the fastest counts, because other work may share the cores


def clustered_keys(n_keys: int, *, seed: int) -> np.ndarray:
    """Return fp16 keys with the low intrinsic dimension that hidden states have."""
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((n_keys, 16), dtype=np.float32)
    noise = rng.standard_normal((n_keys, DIM), dtype=np.float32)
    return (low @ rng.standard_normal((16, DIM), dtype=np.float32) + noise).astype(np.float16)


def store_of(keys: np.ndarray) -> Datastore:
    return in_memory(keys, np.zeros(len(keys), dtype=np.uint16), rows_per_shard=ROWS_PER_SHARD)


def seconds(function, *args, **settings) -> float:
    start = time.perf_counter()
    function(*args, **settings)
    return time.perf_counter() - start


def in_blocks(queries: np.ndarray, datastore: Datastore, metric: str) -> None:
    """Search block by block, as the workflow does, and keep the results."""
    blocks = [queries[i : i + BLOCK_QUERIES] for i in range(0, len(queries), BLOCK_QUERIES)]
    results = [search_exact(block, datastore, k=K, metric=metric) for block in blocks]
    assert len(results) == len(blocks)


def speeds(queries: np.ndarray, datastore: Datastore, metric: str) -> tuple[float, float]:
    """Return queries a second of ours and of faiss, each the fastest of some repetitions."""
    index = {"l2": faiss.IndexFlatL2, "ip": faiss.IndexFlatIP}[metric](DIM)
    for shard in datastore:
        index.add(shard.datastore_keys.astype(np.float32))
    times = []
    for _ in range(REPETITIONS):
        ours = seconds(in_blocks, queries, datastore, metric)
        times.append((ours, seconds(index.search, queries, K)))
    ours, theirs = (len(queries) / min(found) for found in zip(*times, strict=True))
    return ours, theirs


def products(queries: np.ndarray, datastore: Datastore, threads: int) -> float:
    """Return the seconds of the products of all queries and keys, and nothing else: the bound."""
    torch.set_num_threads(threads)
    rows = torch.from_numpy(queries)
    widened = [torch.from_numpy(s.datastore_keys.astype(np.float32)).T for s in datastore]
    scores = torch.empty(BLOCK_QUERIES, ROWS_PER_SHARD)
    start = time.perf_counter()
    for block in rows.split(BLOCK_QUERIES):
        for keys in widened:
            torch.mm(block, keys, out=scores[: len(block), : keys.shape[1]])
    return time.perf_counter() - start


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory(function, *args, **settings) -> int:
    """Return the bytes by which resident memory grew at most while a function ran."""
    done, before = threading.Event(), resident()
    seen = [before]

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    function(*args, **settings)
    done.set()
    watcher.join()
    return max(seen) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=596_000)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    datastore = store_of(clustered_keys(options.keys, seed=0))
    queries = clustered_keys(options.queries, seed=1).astype(np.float32)

    beyond = peak_memory(in_blocks, queries, datastore, "l2") - len(queries) * K * (8 + 4)
    speed = {metric: speeds(queries, datastore, metric) for metric in ("l2", "ip")}
    bound = len(queries) / products(queries, datastore, options.threads)
    print_table(
        f"Exact search, {options.keys:,} keys x {DIM}, k {K}, {options.threads} threads",
        [
            Row("queries/s, faiss IndexFlatL2", *speed["l2"], ">= 0.95"),
            Row("queries/s, faiss IndexFlatIP", *speed["ip"], ">= 0.95"),
            Row("queries/s, the matrix products alone", speed["l2"][0], bound),
            Row("GB beyond the results, 1 GB", beyond / 1e9, 1.0, "<= 1"),
        ],
        f"{len(queries):,} queries.",
    )


if __name__ == "__main__":
    main()
