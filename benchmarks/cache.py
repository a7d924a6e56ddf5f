"""A continuous cache of every theta and size, each mixed with the LM at its best weight.

Prints CPU seconds for 1,000 settings of theta and size at 8,000 positions, from stored hidden
states of whole documents; the weight of each is the best one, not one of a grid. The bound is 30 s.

    .venv/bin/python benchmarks/cache.py [--positions 8000]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.retrieval.cache import cache_log_probs, tune_cache

DOCUMENTS, LENGTH, DIM, VOCABULARY = 73, 650, 64, 2048  # as those of the scale `cpu`
THETAS, SIZES = 40, 25
BOUND = 30.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=8000)
    n_positions = parser.parse_args().positions
    rng = np.random.default_rng(0)
    n = DOCUMENTS * LENGTH
    hidden = rng.normal(size=(n, DIM)).astype(np.float32)
    targets = rng.zipf(1.3, size=n) % VOCABULARY
    rows = np.sort(rng.choice(n, size=n_positions, replace=False))
    lm_log_probs = -rng.gamma(2.0, 2.0, size=(1, n_positions))

    started = time.process_time()
    cache = cache_log_probs(
        hidden,
        targets,
        np.repeat(np.arange(DOCUMENTS), LENGTH),
        rows,
        thetas=np.geomspace(0.5, 100.0, THETAS) / DIM,
        sizes=np.linspace(10, LENGTH, SIZES).astype(int).tolist(),
    )
    tuning = tune_cache(lm_log_probs, cache)
    seconds = time.process_time() - started

    print_table(
        "Scoring a continuous cache from stored states",
        [Row("CPU seconds, bound", seconds, BOUND, "<= 1")],
        f"{n_positions:,} positions in {DOCUMENTS} documents of {LENGTH} tokens, "
        f"{' x '.join(map(str, tuning.nll.shape))} thetas and sizes.",
    )


if __name__ == "__main__":
    main()
