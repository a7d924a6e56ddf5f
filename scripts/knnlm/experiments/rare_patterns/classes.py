"""The classes of tokens in which rare_patterns tells apart where retrieval helps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.token_classes import (
    BEYOND_BINS,
    COUNT_BINS,
    count_words,
    read_text,
    word_masks,
    words_of_tokens,
)
from knnlm.experiments.rare_patterns.patterns import suffix_counts
from knnlm.lm.scoring import Queries
from knnlm.text.tokens import TokenStream

SUFFIX_BINS = {"0-1": 1, "2-3": 3, "4-6": 6, "7-9": 9, "10-15": 15}  # label: its longest
BEYOND_SUFFIXES = "> 15"
RARE, FREQUENT = (1, 2), (11, np.inf)  # counts in train of the contexts that are compared

Masks = dict[str, NDArray[np.bool_]]


def counts_in_train(
    train: TokenStream, test: TokenStream, queries: Queries, *, longest: int
) -> NDArray[np.int64]:
    """Return how often train has the last 1 to `longest` tokens before each target, (n, longest).

    A context begins with its document, whose end-of-document token is its first token.
    """
    positions = np.asarray(queries.positions)
    opening = np.asarray(test.documents)[queries.documents]
    lengths = positions - opening + 1
    return suffix_counts(
        np.asarray(train.tokens), np.asarray(test.tokens), positions, lengths, longest=longest
    )


def suffixes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the longest common suffix, in tokens, of each context with one of train, (n,)."""
    return (counts > 0).sum(axis=1)


def context_masks(counts: NDArray[np.int64], lengths: Sequence[int]) -> Masks:
    """Return which targets follow a context that train has so often, for each length of it."""
    masks: Masks = {}
    for length in lengths:
        masks |= binned(f"preceding {length}", counts[:, length - 1], COUNT_BINS, BEYOND_BINS)
    return masks


def suffix_masks(counts: NDArray[np.int64]) -> Masks:
    """Return which targets follow a context that train has for so many tokens."""
    return binned("common suffix", suffixes(counts), SUFFIX_BINS, BEYOND_SUFFIXES)


def target_masks(
    text: Path, stored_text: Path, test: TokenStream, queries: Queries
) -> Mapping[str, NDArray[np.bool_]]:
    """Return which targets belong to a word that train has so often, as "target word: 1-2"."""
    written = read_text(text / "test.txt")
    edges = np.append(test.starts, len(written))
    targets = np.asarray(queries.positions) + 1
    words = words_of_tokens(written, edges[targets], edges[targets + 1]).words
    masks = word_masks(words, count_words(stored_text / "train.txt"))
    told = {name.removeprefix("train count: "): mask for name, mask in masks.items()}
    return {
        f"target word: {name}": told[name] for name in (*COUNT_BINS, BEYOND_BINS) if name in told
    }


def binned(what: str, numbers: NDArray[np.int64], bins: Mapping[str, int], beyond: str) -> Masks:
    """Return which numbers fall into each bin, as "what: bin"; bins without one are left out."""
    places = np.searchsorted([*bins.values()], numbers)  # a bin holds its last number
    masks = {f"{what}: {name}": places == place for place, name in enumerate([*bins, beyond])}
    return {name: mask for name, mask in masks.items() if mask.any()}


def between(numbers: NDArray[np.int64], ends: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which numbers lie between two ends, these included."""
    return (ends[0] <= numbers) & (numbers <= ends[1])
