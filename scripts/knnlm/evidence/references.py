"""What a generated corpus knows about itself: reference readers, and how much of test is told.

The generator records the probability of every choice it makes. The code length of a document's
choices bounds the entropy of its text from above, since two derivations can give one text: these
are references, not limits. Corpora that were not generated have no rows here.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.scored_text import Row
from knnlm.runtime.seeds import numpy_generator
from knnlm.text.tokens import load_tokens

READERS = ("knows_grammar_and_facts", "has_read_train", "knows_grammar")


def reference_rows(
    names: Mapping[str, Any], text: Path, tokens: Path, *, bootstrap: Mapping[str, int]
) -> list[Row]:
    """Return the perplexities of three readers of the test split, with intervals over documents.

    They cover whole test documents, all of their tokens, while methods score sampled spans: the
    setting of the rows says so. The end-of-document token is not counted.

    Args:
        names: the names of the rows.
        text: the text artifact; without test.references.parquet there are no rows.
        tokens: the tokens artifact, for the number of tokens and words of each document.
        bootstrap: `samples` and `seed`.
    """
    path = text / "test.references.parquet"
    if not path.is_file():
        return []
    nats = pd.read_parquet(path).sort_values("document")
    stream = load_tokens(tokens, "test")
    n_tokens = np.diff(stream.documents) - 1
    words, lines = (
        np.add.reduceat(counts.astype(np.int64), stream.documents[:-1])
        for counts in (stream.words, stream.lines)
    )
    if len(nats) != len(n_tokens):
        raise ValueError(
            f"expected {path} to have {len(n_tokens)} documents, got {len(nats)}; remove {text} "
            "and run the same snakemake command again"
        )
    generator = numpy_generator(bootstrap["seed"], "bootstrap", "whole documents")
    resampled = DocumentBootstrap(
        np.arange(len(nats)), samples=bootstrap["samples"], generator=generator
    )
    counts = {"token": n_tokens, "word": words + lines, "raw_word": words}
    rows = []
    for reader, (unit, count) in product(READERS, counts.items()):
        total = nats[reader].to_numpy(dtype=np.float64)
        mean = total.sum() / count.sum()
        value, low, high = np.exp([mean, *resampled.ratio(total, count)])
        rows.append(
            {**names, "method": "reference", "setting": f"{reader}/whole documents"}
            | {"metric": f"perplexity_per_{unit}", "value": value, "unit": "perplexity"}
            | {"ci_low": low, "ci_high": high, "n": int(count.sum())}
        )
    return rows


def told_rows(names: Mapping[str, Any], text: Path) -> list[Row]:
    """Return the share of test facts that train tells: it sets the size of what memory can win.

    Args:
        names: the names of the rows.
        text: the text artifact; without test.facts.parquet there are no rows.

    Returns:
        Two shares: of distinct facts, and of mentions (a fact told twice in test counts twice).
    """
    path = text / "test.facts.parquet"
    if not path.is_file():
        return []
    facts = pd.read_parquet(path)
    counted = {"distinct facts": facts.drop_duplicates("fact"), "mentions": facts}
    return [
        {**names, "method": "corpus", "setting": setting, "metric": "facts_told_in_train"}
        | {"value": float((chosen["told_in_train"] > 0).mean()), "n": len(chosen), "unit": "share"}
        for setting, chosen in counted.items()
    ]
