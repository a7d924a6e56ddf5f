"""Generating the gazetteer: megabytes of text a second of CPU time, against the goal of 0.5.

.venv/bin/python benchmarks/gazetteer.py [--people 1400]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.text.gazetteer.corpus import generate

GOAL = 0.5  # MB/s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=1400)
    started = time.process_time()
    splits = generate(seed=0, people=parser.parse_args().people)
    seconds = time.process_time() - started
    size = sum(len(article.text.encode()) for split in splits.values() for article in split) / 1e6
    print_table(
        "Generating the gazetteer",
        [Row("MB of text per CPU second, goal", size / seconds, GOAL, ">= 1")],
        f"{size:.2f} MB.",
    )


if __name__ == "__main__":
    main()
