"""Building a datastore against the model's own full forward pass.

Prints one table: tokens a second put through the model of the scale `cpu`, by building (capture,
conversion, checks, checksums and writing included) and by a bare forward pass with logits in
batches of the same size, and their ratio, which should be at least 1.5.

    .venv/bin/python benchmarks/datastore.py [--tokens 100000]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.lm.model import create_model
from knnlm.retrieval.datastore_parts import rows_of_shard, write_shards
from knnlm.retrieval.encoder import TOKENS_A_BATCH, Encoder

CONFIG = Path(__file__).resolve().parents[1] / "config.yaml"
REPETITIONS = 3  # of each, in turn; the fastest counts, because other work may share the cores


def build(model, stream: np.ndarray, datastore: dict) -> float:
    chosen = {name: datastore[name] for name in ("site", "stride", "dtype")}
    rows = rows_of_shard(
        datastore["shard_mib"], dim=model.config.hidden_size, dtype=chosen["dtype"]
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_shards(Path(folder), Encoder(model, stream, **chosen), range(len(stream) - 1), rows)
        return time.perf_counter() - start


@torch.no_grad()
def forward(model, stream: np.ndarray, context: int) -> float:
    windows = torch.from_numpy(stream[: len(stream) // context * context].astype(np.int64))
    start = time.perf_counter()
    for batch in windows.view(-1, context).split(max(1, TOKENS_A_BATCH // context)):
        model(batch, use_cache=False)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    vocabulary = config["tokenizers"]["own"]["vocabulary_size"]
    datastore, settings = config["datastores"]["base"], config["models"]["base"]
    model = create_model(settings, vocabulary_size=vocabulary, seed=0)
    stream = np.random.default_rng(0).integers(0, vocabulary, options.tokens).astype(np.uint16)

    times: dict[str, list[float]] = {"ours": [], "forward": []}
    for _ in range(REPETITIONS):
        times["ours"].append(build(model, stream, datastore))
        times["forward"].append(forward(model, stream, settings["context"]))
    speed = {name: options.tokens / min(found) for name, found in times.items()}
    print_table(
        f"Building a datastore, {settings['layers']} layers of {settings['width']}, "
        f"{options.threads} threads",
        [Row("tokens/s, a full forward pass with logits", *speed.values(), ">= 1.5")],
        f"{options.tokens:,} tokens; ours converts, checks, hashes and writes as well.",
    )


if __name__ == "__main__":
    main()
