"""The gazetteer: megabytes of text a second of CPU time, against the goal of 0.5; its statistics.

They are those that docs/gazetteer.md sets beside WikiText's, here of train and validation.

.venv/bin/python benchmarks/gazetteer.py [--people 1400]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table

from knnlm.text.gazetteer.corpus import compose
from knnlm.text.statistics import describe

GOAL = 0.5  # MB/s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=1400)
    started = time.process_time()
    splits = compose(seed=0, people=parser.parse_args().people, held_out=0.11).splits
    seconds = time.process_time() - started
    texts = {split: "".join(article.text for article in made) for split, made in splits.items()}
    size = sum(len(text.encode()) for text in texts.values()) / 1e6
    print_table(
        "Generating the gazetteer",
        [Row("MB of text per CPU second, goal", size / seconds, GOAL, ">= 1")],
        f"{size:.2f} MB.",
    )
    for name, value in describe(texts["train"], texts["validation"]).items():
        print(f"{name}: {value:,.4g}")


if __name__ == "__main__":
    main()
