"""What a GPU makes of the library: training, exact search, projection, against its own products.

    PYTHONPATH=scripts python benchmarks/gpu.py

prints one table in under 8 minutes on one 80 GB-class GPU, with no network and nothing on disk
but a temporary folder. The bound of each line is the rate of large matrix products measured
beside it. Goals: training at 0.40 of the peak of bf16, exact search within 2 times the bound.
Without a GPU, or with --tiny, everything runs at sizes of a few seconds: that shows that the
script works, and its figures mean nothing.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from knnlm.experiments.softmax_bottleneck.mixture import Mixture
from knnlm.experiments.softmax_bottleneck.projection import project
from knnlm.experiments.softmax_bottleneck.stops import Stop
from knnlm.lm.model import create_model
from knnlm.lm.pretraining import next_token_loss
from knnlm.lm.training import Journal, Recipe, train
from knnlm.plan.sizes import own_size
from knnlm.retrieval.datastore import Datastore, in_memory
from knnlm.retrieval.distribution import knn_distribution
from knnlm.retrieval.engines.exact import search_exact

K = 1024
ROWS_PER_SHARD = 1 << 20


class Sizes(NamedTuple):
    """What is measured."""

    layers: int
    width: int
    vocabulary: int
    context: int
    batch: int  # windows of a forward pass
    updates: int  # timed, after WARM ones
    stores: tuple[tuple[int, int], ...]  # keys and width
    queries: int
    compared: tuple[int, int, int]  # keys, width and queries of the CPU/GPU comparison
    projected: int  # queries
    steps: int  # of Adam
    product: int  # side of the products that are the bound


LARGE = Sizes(
    layers=12,
    width=768,
    vocabulary=50_257,
    context=1024,
    batch=16,
    updates=30,
    stores=((2_000_000, 768), (10_000_000, 1024)),
    queries=4096,
    compared=(500_000, 768, 512),
    projected=512,
    steps=50,
    product=8192,
)
TINY = Sizes(2, 32, 256, 32, 4, 3, ((3000, 32), (5000, 48)), 64, (3000, 32, 32), 16, 3, 128)
WARM = 5
ADAMW = {"name": "adamw", "lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.1}


class Line(NamedTuple):
    """A line of the table."""

    what: str
    found: float
    bound: float
    unit: str


def seconds(device: str, run: Callable[[], object]) -> float:
    """Return the wall time of a run, with all that the device still has to do."""
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def product_rate(device: str, dtype: torch.dtype, side: int) -> float:
    """Return FLOP/s of square matrix products: the peak that the device reaches."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    repeats = 20

    def run() -> None:
        for _ in range(repeats):
            a @ b

    run()
    return repeats * 2 * side**3 / seconds(device, run)


def training(device: str, sizes: Sizes, peak: float) -> Iterator[Line]:
    """Yield tokens/s of training in bf16, against the counted FLOPs at the peak."""
    shape = {
        "layers": sizes.layers,
        "width": sizes.width,
        "heads": max(1, sizes.width // 64),
        "ffn_width": 4 * sizes.width,
        "context": sizes.context,
        "activation": "gelu_new",
        "tied_embeddings": True,
        "dropout": {"residual": 0.1, "attention": 0.1, "activation": 0.0},
        "without_mlp": [],
    }
    tokens = torch.randint(sizes.vocabulary, (64, sizes.batch, sizes.context + 1))

    def run(updates: int) -> None:
        recipe = Recipe(
            steps=updates,
            optimizer=ADAMW,
            schedule={"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
            clip_norm=1.0,
            precision="bf16" if device == "cuda" else "fp32",
            accumulation=1,
            seed=0,
        )
        with tempfile.TemporaryDirectory() as folder:
            train(
                create_model(shape, vocabulary_size=sizes.vocabulary, seed=0),
                recipe,
                batch_at=lambda number: tokens[number % len(tokens)],
                loss=next_token_loss,
                journal=Journal(Path(folder), save_every=10**9, log_every=10**9),
            )

    run(WARM)
    short = seconds(device, lambda: run(WARM))
    long = seconds(device, lambda: run(WARM + sizes.updates))
    counted = own_size(shape, sizes.vocabulary).forward(1, span=sizes.context, scored=1)
    per_token = 3 * counted  # a backward pass has twice the products of a forward pass
    read = sizes.updates * sizes.batch * sizes.context
    name = f"training, {sizes.layers} x {sizes.width}, context {sizes.context}"
    yield Line(name, read / (long - short), peak / per_token, "tokens/s")


def keys_of(device: str, count: int, width: int, *, seed: int) -> np.ndarray:
    """Return fp16 keys with the low intrinsic dimension that hidden states have."""
    generator = torch.Generator(device).manual_seed(seed)
    base = torch.Generator(device).manual_seed(0)
    directions = torch.randn(16, width, device=device, generator=base)
    keys = np.empty((count, width), np.float16)
    for first in range(0, count, ROWS_PER_SHARD):
        rows = min(ROWS_PER_SHARD, count - first)
        low = torch.randn(rows, 16, device=device, generator=generator)
        noise = torch.randn(rows, width, device=device, generator=generator)
        keys[first : first + rows] = (low @ directions + noise).half().cpu().numpy()
    return keys


def store_of(keys: np.ndarray) -> Datastore:
    """Return keys as a datastore that was never written."""
    return in_memory(keys, np.zeros(len(keys), np.uint16), rows_per_shard=ROWS_PER_SHARD)


def search(device: str, sizes: Sizes, peak: float) -> Iterator[Line]:
    """Yield queries/s of exact search from host memory, against its matrix product in 16 bits."""
    for count, width in sizes.stores:
        store = store_of(keys_of(device, count, width, seed=1))
        queries = keys_of(device, sizes.queries, width, seed=2).astype(np.float32)
        k = min(K, count)
        search_exact(queries[:16], store, k=k, device=device)
        passed = seconds(
            device, lambda q=queries, s=store, k=k: search_exact(q, s, k=k, device=device)
        )
        name = f"exact search, {count:,} x {width}, k {k}"
        yield Line(name, sizes.queries / passed, peak / (2 * count * width), "queries/s")


def overlap(device: str, sizes: Sizes) -> Iterator[Line]:
    """Yield the share of neighbors that the device and the CPU have in common, in order."""
    count, width, n_queries = sizes.compared
    store = store_of(keys_of(device, count, width, seed=3))
    queries = keys_of(device, n_queries, width, seed=4).astype(np.float32)
    k = min(K, count)
    found, expected = (search_exact(queries, store, k=k, device=d)[0] for d in (device, "cpu"))
    same = float((found == expected).mean())
    yield Line(f"same neighbors as the CPU, {count:,} x {width}", same, 1.0, "share")


def projection(device: str, sizes: Sizes, peak: float) -> Iterator[Line]:
    """Yield updates/s of the paper's optimizer for all queries, against its two products."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    head = normal(sizes.vocabulary, sizes.width).to(device) / math.sqrt(sizes.width)
    hidden = normal(sizes.projected, sizes.width).to(device)
    distances = 5 + torch.rand(sizes.projected, 64, generator=generator)
    values = torch.randint(sizes.vocabulary, (sizes.projected, 64), generator=generator)
    merged = (part.to(device) for part in knn_distribution(distances, values, temperature=2.0))
    mixture = Mixture(hidden, head, *merged, 0.25)

    def run(steps: int) -> None:
        project(
            lambda z: z @ head.T,
            hidden,
            mixture,
            direction="p||f",
            lr=0.1,
            stops=[Stop("end", "mean", None)],
            max_steps=steps,
            tile=sizes.projected,
        )

    run(2)
    passed = seconds(device, lambda: run(sizes.steps))
    flops = 2 * 2 * sizes.projected * sizes.width * sizes.vocabulary
    name = f"projection, {sizes.projected} queries, V {sizes.vocabulary:,}"
    yield Line(name, (sizes.steps + 1) / passed, peak / flops, "updates/s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="sizes of a few seconds")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tiny = parser.parse_args().tiny or device == "cpu"
    sizes = TINY if tiny else LARGE
    half = torch.bfloat16 if device == "cuda" else torch.float32
    started = time.perf_counter()
    peaks = {kind: product_rate(device, kind, sizes.product) for kind in {half, torch.float32}}
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, " + ("tiny: figures mean nothing" if tiny else ""))
    for kind, rate in peaks.items():
        print(f"products of {sizes.product}, {kind}: {rate / 1e12:.2f} TFLOP/s")
    print("| what | found | bound | share of the bound |\n|---|---:|---:|---:|")
    parts = (
        training(device, sizes, peaks[half]),
        search(device, sizes, peaks[half]),
        overlap(device, sizes),
        projection(device, sizes, peaks[torch.float32]),
    )
    for part in parts:
        for line in part:
            share = line.found / line.bound
            print(
                f"| {line.what} | {line.found:,.4g} {line.unit} | {line.bound:,.4g} "
                f"| {share:.3f} |",
                flush=True,
            )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
