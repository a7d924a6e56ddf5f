"""Counts of contexts in a training text, against counting them one by one."""

from collections import Counter

import numpy as np
import pytest

from knnlm.experiments.rare_patterns import patterns
from knnlm.experiments.rare_patterns.patterns import suffix_counts


def counted(train, stream, ends, lengths, longest):
    """Count all runs of tokens of the training text, the one at its very end left out."""
    runs = Counter(
        tuple(train[at : at + length])
        for length in range(1, longest + 1)
        for at in range(len(train) - length)
    )
    return [
        [
            runs[tuple(stream[end - length + 1 : end + 1])] if length <= available else 0
            for length in range(1, longest + 1)
        ]
        for end, available in zip(ends, lengths, strict=True)
    ]


def a_text(generator, n_tokens, vocabulary):
    """Return a text that repeats itself, so that some runs are long."""
    text = generator.integers(0, vocabulary, size=n_tokens)
    for _ in range(n_tokens // 40):
        begin, to = generator.integers(0, n_tokens - 25, size=2)
        text[to : to + 25] = text[begin : begin + 25].copy()
    return text.astype(np.uint16)


def test_a_context_by_hand():
    train = np.array([5, 1, 2, 3, 1, 2, 4, 1, 2], dtype=np.uint16)
    stream = np.array([1, 2, 3, 1, 2], dtype=np.uint16)

    counts = suffix_counts(train, stream, np.array([4]), np.array([5]), longest=6)

    # the "2" at the end of train has no token behind it, and is no context
    assert counts.tolist() == [[2, 2, 1, 1, 1, 0]]


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_looking_everywhere(monkeypatch, block, seed):
    monkeypatch.setattr(patterns, "BLOCK", block)
    generator = np.random.default_rng(seed)
    train = a_text(generator, 400, vocabulary=6)
    stream = np.concatenate([a_text(generator, 150, vocabulary=7), train[100:180], train[-1:]])
    ends = generator.permutation(len(stream))[:120]
    lengths = np.minimum(ends + 1, generator.integers(1, 40, size=len(ends)))

    counts = suffix_counts(train, stream, ends, lengths, longest=30)

    assert (counts == np.array(counted(train, stream, ends, lengths, 30))).all()
    assert counts[:, -1].any()
    assert (np.diff(counts, axis=1) <= 0).all()


def test_no_context_reaches_beyond_its_length():
    train = np.array([1, 2, 3, 4, 9], dtype=np.uint16)
    stream = np.array([1, 2, 3, 4], dtype=np.uint16)

    counts = suffix_counts(train, stream, np.array([3, 3]), np.array([2, 4]), longest=4)

    assert counts.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_it_is_fast_on_a_text_of_a_hundred_thousand_tokens():
    generator = np.random.default_rng(0)
    train = a_text(generator, 100_000, vocabulary=2000)
    ends = np.arange(100, 8_100)
    lengths = np.full(len(ends), 100)

    counts = suffix_counts(train, train, ends, lengths, longest=32)

    assert (counts[:, -1] > 0).all()  # its own place is among those that are counted
