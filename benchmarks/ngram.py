"""N-gram LMs of all orders to 10, counted on 600,000 tokens and scored on a tenth as many.

Prints seconds of CPU time and the largest memory of the whole process, against the bounds of one
minute and 2 GB. The text is the gazetteer's, in the tokens of the scale `cpu`.

    .venv/bin/python benchmarks/ngram.py [--tokens 600000] [--people 1700]
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from prepared_lm import prepare_tokens, settings
from ratio_table import Row, print_table

from knnlm.lm.ngram import Documents, log_probs
from knnlm.runtime.artifacts import read_manifest
from knnlm.text.tokens import load_tokens

ORDER = 10
SECONDS, GIGABYTES = 60.0, 2.0


def documents(folder: Path, split: str, *, n_tokens: int) -> Documents:
    """Return the first documents of a split, as many as fit into so many tokens."""
    stream = load_tokens(folder, split)
    count = int(np.searchsorted(stream.documents, n_tokens, side="right"))
    borders = np.asarray(stream.documents[:count])
    return Documents(np.asarray(stream.tokens[: borders[-1]]), borders)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=600_000)
    parser.add_argument("--people", type=int, default=1700)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tokens, _ = prepare_tokens(Path(folder), settings(), people=options.people)
        vocabulary = read_manifest(tokens, kind="tokens")["contents"]["vocabulary_size"]
        train = documents(tokens, "train", n_tokens=options.tokens)
        text = documents(tokens, "validation", n_tokens=options.tokens // 10)
    started = time.process_time()
    log_probs(train, [text], orders=range(2, ORDER + 1), vocabulary=vocabulary)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    print_table(
        "Counting n-grams",
        [
            Row("CPU seconds, bound", seconds, SECONDS, "<= 1"),
            Row("largest memory of the process in GB, bound", peak, GIGABYTES, "<= 1"),
        ],
        f"{len(train.tokens):,} tokens counted, {len(text.tokens):,} scored, orders 2 to {ORDER}; "
        "the memory includes the libraries and the making of the text.",
    )


if __name__ == "__main__":
    main()
