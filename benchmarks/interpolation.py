"""The whole grid of k, temperature and lmbda, scored from stored neighbors.

Prints one table: seconds for 30 temperatures, 11 k and 99 lmbdas on 8,000 queries with 1,024
neighbors, on one thread; the bound is 20 s.

    .venv/bin/python benchmarks/interpolation.py [--queries 8000]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.retrieval.interpolation import mean_distance, sweep

K_MAX = 1024
BOUND = 20.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=8000)
    n_queries = parser.parse_args().queries
    rng = np.random.default_rng(0)
    distances = np.sort(rng.gamma(20.0, 2.0, (n_queries, K_MAX)).astype(np.float32), axis=1)
    values = rng.integers(0, 50, (n_queries, K_MAX), dtype=np.int32)
    targets = rng.integers(0, 60, n_queries, dtype=np.int32)
    lm_log_probs = -rng.gamma(2.0, 2.0, n_queries)

    start = time.perf_counter()
    nll = sweep(
        distances,
        values,
        targets,
        lm_log_probs,
        ks=[2**i for i in range(11)],
        temperatures=np.geomspace(0.02, 5.0, 30) * mean_distance(distances),
        lmbdas=np.linspace(0.01, 0.99, 99),
    )
    seconds = time.perf_counter() - start

    print_table(
        "Scoring the grid from stored neighbors",
        [Row("seconds, goal", seconds, BOUND, "<= 1")],
        f"{n_queries:,} queries, k {K_MAX}, {' x '.join(map(str, nll.shape))} settings.",
    )


if __name__ == "__main__":
    main()
