"""Training an MLP replacement from shards on disk against a bare loop on a tensor in memory.

Both train the same network with the same optimizer on as many pairs. Ours streams fp16 shards,
shuffles within and across them, follows a schedule, logs and saves its state; the peer indexes
one fp32 tensor by a random permutation and does nothing else. Prints one table: pairs a second of
both and their ratio, which should be at least 0.8.

    .venv/bin/python benchmarks/mlp_training.py [--pairs 131072] [--threads 2]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.retrieval.datastore import Shard
from knnlm.retrieval.mlp_replacement import MlpReplacement, train_on
from knnlm.retrieval.pairs import ShuffledPairs

DIM, VOCABULARY, HIDDEN = 128, 4096, 512  # as at the scale `cpu`
ROWS_PER_SHARD = 65_536  # 16 MiB of fp16 keys, as at the scale `cpu`
BATCH, LR = 1024, 1.0e-3
SETTINGS = {
    "epochs": 1,
    "batch_size": BATCH,
    "accumulation": 1,
    "optimizer": {"name": "adam", "lr": LR, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
    "clip_norm": None,
    "precision": "fp32",
    "save_every": 100,
    "buffer_mib": 32,
}
REPETITIONS = 3  # of each, in turn; the fastest counts, because other work may share the cores


def written(folder: Path, keys: np.ndarray, values: np.ndarray) -> list[Shard]:
    shards = []
    for first in range(0, len(keys), ROWS_PER_SHARD):
        paths = [folder / f"{name}-{first}.npy" for name in ("keys", "values")]
        for path, array in zip(paths, (keys, values), strict=True):
            np.save(path, array[first : first + ROWS_PER_SHARD])
        shards.append(Shard(first, *(np.load(path, mmap_mode="r") for path in paths)))
    return shards


def network() -> MlpReplacement:
    head = torch.zeros(VOCABULARY, DIM)
    return MlpReplacement(head, head_setting="random", hidden=HIDDEN, activation="gelu_new", seed=0)


def ours(shards: list[Shard], folder: Path) -> float:
    module = network()
    start = time.perf_counter()
    pairs = ShuffledPairs(shards, buffer_mib=SETTINGS["buffer_mib"], seed=0)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        train_on(module, pairs, settings=SETTINGS, seed=0, partial=Path(partial))
    return time.perf_counter() - start


def peer(keys: torch.Tensor, values: torch.Tensor) -> float:
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, fused=True)
    start = time.perf_counter()
    for rows in torch.randperm(len(keys)).split(BATCH):
        cross_entropy(module(keys[rows]), values[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=131_072)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((options.pairs, DIM), dtype=np.float32).astype(np.float16)
    values = rng.integers(0, VOCABULARY, options.pairs).astype(np.uint16)
    in_memory = torch.from_numpy(keys).float(), torch.from_numpy(values.astype(np.int64))
    times = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as name:
        shards = written(Path(name), keys, values)
        for _ in range(REPETITIONS):
            times["peer"].append(peer(*in_memory))
            times["ours"].append(ours(shards, Path(name)))
    speed = {name: options.pairs / min(found) for name, found in times.items()}
    print_table(
        f"Training an MLP replacement, {options.threads} threads",
        [Row("pairs/s, a bare loop on a tensor in memory", *speed.values(), ">= 0.8")],
        f"{options.pairs:,} pairs of width {DIM}, V {VOCABULARY:,}, batches of {BATCH:,}.",
    )


if __name__ == "__main__":
    main()
