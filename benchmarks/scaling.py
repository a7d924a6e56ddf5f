"""How time and memory grow with keys, width, vocabulary and queries.

    PYTHONPATH=scripts python benchmarks/scaling.py

prints one table in about three minutes: for each step CPU seconds (one thread, so that other work
on the cores does not enter) and anonymous memory beyond what was there before, over a range of
sizes, with the exponent b of seconds ~ size^b fitted to its larger half. What should be flat is
memory over keys, because search reads a datastore in slices of bounded size, and memory over
tokens, because keys are encoded block by block. docs/scaling.md says what follows.
"""

import argparse
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import torch

from knnlm.lm.model import create_model
from knnlm.lm.pretraining import next_token_loss
from knnlm.retrieval.datastore import Datastore, Shard
from knnlm.retrieval.encoder import Encoder
from knnlm.retrieval.engines.exact import search_exact
from knnlm.retrieval.sampling import Entries

K = 256
QUERIES = 2048  # searched at a time at the scale `cpu`
ROWS_PER_SHARD = 1 << 16
MB = 1e6
SHAPE = {
    "layers": 2,
    "width": 128,
    "heads": 4,
    "ffn_width": 512,
    "context": 128,
    "activation": "gelu_new",
    "tied_embeddings": True,
    "dropout": {"residual": 0.0, "attention": 0.0, "activation": 0.0},
    "without_mlp": [],
}
BATCH = 8  # windows of an update
REPEATS, SHORT = 3, 2.0  # more runs of what takes fewer seconds


class Curve(NamedTuple):
    """One step over one size."""

    step: str
    over: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Callable[[], object]]
    expected: str


class Point(NamedTuple):
    """One size: CPU seconds of the step, and the bytes by which memory grew at most."""

    size: int
    seconds: float
    memory: float


def anonymous() -> int:
    """Return the bytes of this process that are no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("expected RssAnon in /proc/self/status; this benchmark needs Linux")


def measure(size: int, run: Callable[[], object]) -> Point:
    """Run once for the memory and, if that was short, again for the least time."""
    point = watched(size, run)
    again = [watched(size, run).seconds for _ in range(REPEATS) if point.seconds < SHORT]
    return point._replace(seconds=min([point.seconds, *again]))


def watched(size: int, run: Callable[[], object]) -> Point:
    """Run once, with the memory looked at every few milliseconds."""
    done, before = threading.Event(), anonymous()
    seen = [before]

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    run()
    seconds = time.process_time() - start
    done.set()
    watcher.join()
    return Point(size, seconds, max(seen) - before)


def exponent(points: list[Point]) -> float:
    """Return the slope of log seconds over log size, by least squares over the larger half."""
    larger = points[len(points) // 2 - 1 :]
    sizes, seconds = ([math.log(getattr(p, n)) for p in larger] for n in ("size", "seconds"))
    return float(np.polyfit(sizes, seconds, 1)[0])


def store(folder: Path, count: int, width: int) -> Datastore:
    """Return a datastore of random fp16 keys in memory-mapped shards, made once."""
    shards = []
    for number, first in enumerate(range(0, count, ROWS_PER_SHARD)):
        rows = min(ROWS_PER_SHARD, count - first)
        path = folder / f"{width}-{rows}-{number}.npy"
        if not path.is_file():
            generator = np.random.default_rng([width, number])
            np.save(path, generator.standard_normal((rows, width), np.float32).astype(np.float16))
        values = np.zeros(rows, np.uint16)
        shards.append(Shard(first, np.load(path, mmap_mode="r"), values))
    return Datastore(
        folder=folder,
        shards=tuple(shards),
        n_entries=count,
        dim=width,
        dtype=np.dtype(np.float16),
        rows_per_shard=ROWS_PER_SHARD,
        settings={},
        made_from={},
        entries=Entries(count),
        rows=range(count),
    )


def search(folder: Path, count: int, width: int, queries: int) -> Callable[[], object]:
    """Return exact search, prepared."""
    datastore = store(folder, count, width)
    asked = np.random.default_rng(0).standard_normal((queries, width), np.float32)
    return lambda: search_exact(asked, datastore, k=K)


def update(vocabulary: int, width: int) -> Callable[[], object]:
    """Return the forward and the backward pass of an update, prepared."""
    shape = SHAPE | {"width": width, "ffn_width": 4 * width}
    model = create_model(shape, vocabulary_size=vocabulary, seed=0).train()
    batch = torch.randint(vocabulary, (BATCH, SHAPE["context"] + 1))

    def run() -> None:
        next_token_loss(model, batch).backward()
        model.zero_grad()

    run()
    return run


def encode(tokens: int) -> Callable[[], object]:
    """Return the encoding of keys block by block, each dropped as a shard would be written."""
    model = create_model(SHAPE, vocabulary_size=1024, seed=0)
    stream = np.random.default_rng(0).integers(1024, size=tokens + 1).astype(np.uint16)
    site = "ffn_input_after_layer_norm"
    block = 8192

    def run() -> None:
        encoder = Encoder(model, stream, site=site, stride=128, dtype="float16")
        for start in range(0, tokens, block):
            encoder.keys(start, min(start + block, tokens))

    return run


def curves(folder: Path, scale: float) -> Iterator[Curve]:
    """Yield what is measured; a scale below 1 leaves out the largest sizes."""

    def up_to(largest: int, *sizes: int) -> tuple[int, ...]:
        return tuple(size for size in sizes if size <= largest * scale or size <= sizes[2])

    keys = up_to(3_000_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
    yield Curve("exact search", "keys", keys, lambda n: search(folder, n, 64, QUERIES), "1; flat")
    few, widths = 65_536, up_to(512, 32, 64, 128, 256, 512)
    yield Curve("exact search", "width", widths, lambda n: search(folder, few, n, QUERIES), "to 1")
    asked = up_to(16_384, 2048, 4096, 8192, 16_384)
    yield Curve("exact search", "queries", asked, lambda n: search(folder, few, 64, n), "1")
    tokens = up_to(131_072, 8192, 16_384, 32_768, 65_536, 131_072)
    yield Curve("encoding", "tokens", tokens, encode, "1; flat")
    sizes = up_to(65_536, 1024, 4096, 16_384, 65_536)
    yield Curve("update", "vocabulary", sizes, lambda n: update(n, 128), "to 1")
    widths = up_to(1024, 64, 128, 256, 512, 1024)
    yield Curve("update", "width", widths, lambda n: update(4096, n), "1 to 2")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="below 1: smaller largest sizes")
    scale = parser.parse_args().scale
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print("| step | over | sizes | CPU seconds | exponent | expected | MB |")
    print("|---|---|---|---|---:|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        for curve in curves(Path(folder), scale):
            points = []
            for size in curve.sizes:
                run = curve.prepare(size)
                points.append(measure(size, run))
                del run
            rows = {
                "sizes": " ".join(f"{p.size:,}" for p in points),
                "seconds": " ".join(f"{p.seconds:.3g}" for p in points),
                "memory": " ".join(f"{p.memory / MB:.0f}" for p in points),
            }
            print(
                f"| {curve.step} | {curve.over} | {rows['sizes']} | {rows['seconds']} "
                f"| {exponent(points):.2f} | {curve.expected} | {rows['memory']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
