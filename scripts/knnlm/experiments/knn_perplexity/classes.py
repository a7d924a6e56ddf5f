"""The classes of target tokens in which knn_perplexity tells apart where retrieval helps."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.token_classes import (
    count_words,
    fact_masks,
    read_text,
    word_masks,
    words_of_tokens,
)
from knnlm.lm.scoring import Queries
from knnlm.text.tokens import load_tokens


def classes_of(text: Path, tokens: Path, test: Queries) -> dict[str, NDArray[np.bool_]]:
    """Return the classes of the target tokens of test; by fact where facts are labeled."""
    stream = load_tokens(tokens, "test")
    written = read_text(text / "test.txt")
    edges = np.append(stream.starts, len(written))
    targets = np.asarray(test.positions) + 1
    located = words_of_tokens(written, edges[targets], edges[targets + 1])
    masks = word_masks(located.words, count_words(text / "train.txt"))
    facts = text / "test.facts.parquet"
    if facts.is_file():
        masks |= fact_masks(located.characters, pd.read_parquet(facts))
    return masks
