"""N-gram LMs: interpolated modified Kneser-Ney on token ids, all orders in one pass over the text.

The LM of order N mixes relative frequencies, from which discounts are taken, with the next lower
order, down to the uniform distribution over the vocabulary (Chen and Goodman 1999, Section 3):

    p_n(w | h) = (c(hw) - D(c(hw))) / sum_v c(hv) + g(h) p_{n-1}(w | h without its first token)

D is D1, D2 or D3+ by the count, and g(h) the share that was taken. At the highest order c counts
occurrences. Below it, c counts how many different tokens stand before the n-gram; an n-gram that
only begins documents has nothing before it and keeps its occurrences. No n-gram crosses the border
of a document, whose first token, the end-of-document token, is context and never a target.

An n-gram is the rank of (its first n - 1 tokens, its last token) among all of its length, so that
each length takes one sort, and what is held at a time grows with the text and not with the order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.logs import LOGGER

NONE = -1  # the id of an n-gram that the train text lacks, or that would cross a border
FALLBACK = (0.5, 1.0, 1.5)  # the discounts of KenLM where a text gives none


class Documents(NamedTuple):
    """A text: `tokens` (n_tokens,), and where documents begin and end, (n_documents + 1,)."""

    tokens: NDArray[np.integer]
    documents: NDArray[np.int64]

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether a token begins a document, (n_tokens,)."""
        first = np.zeros(len(self.tokens), dtype=bool)
        first[self.documents[:-1]] = True
        return first


@dataclass(frozen=True)
class Level:
    """The different n-grams of one length; the id of one is its place in `keys`.

    Attributes:
        length: n.
        keys: (n_ngrams,), id of the first n - 1 tokens x vocabulary + last token, ascending.
        contexts: (n_ngrams,), id of the first n - 1 tokens.
        n_contexts: how many different n-grams of length n - 1 there are.
        occurrences: (n_ngrams,), how often each stands in the text.
        continuations: (n_ngrams,), the counts of a lower order; None at the greatest length.
    """

    length: int
    keys: NDArray[np.int64]
    contexts: NDArray[np.int64]
    n_contexts: int
    occurrences: NDArray[np.int64]
    continuations: NDArray[np.int64] | None


def log_probs(
    train: Documents, texts: Sequence[Documents], *, orders: Sequence[int], vocabulary: int
) -> list[NDArray[np.float64]]:
    """Return what n-gram LMs say of every token of some texts.

    Args:
        train: the text that they are counted on, see `levels`.
        texts: those that they score.
        orders: of the LMs, each at least 1.
        vocabulary: size V.

    Returns:
        (n_orders, n_tokens) for each text, in nats; NaN for the first token of a document, which
        is no target.

    Raises:
        ValueError: if no document of train is as long as the largest order.
    """
    readers = [_Reader(text, text.first, vocabulary) for text in texts]
    found = [np.full((len(orders), len(text.tokens)), np.nan) for text in texts]
    for level in levels(train, order=max(orders), vocabulary=vocabulary):
        highest = _estimates(level, level.occurrences) if level.length in orders else None
        lower = None if level.continuations is None else _estimates(level, level.continuations)
        for reader, rows in zip(readers, found, strict=True):
            reader.look_up(level)
            if highest is not None:
                rows[list(orders).index(level.length)] = np.log(reader.mixed(highest))
            if lower is not None:
                reader.probs = reader.mixed(lower)
    for reader, rows in zip(readers, found, strict=True):
        rows[:, reader.first] = np.nan
    return found


def levels(text: Documents, *, order: int, vocabulary: int) -> Iterator[Level]:
    """Yield the n-grams of a text by length, from 1 to an order.

    Args:
        text: its tokens are below `vocabulary`, and what begins a document stands nowhere else.
        order: the greatest length.
        vocabulary: size V. Each token is an n-gram of length 1, if only with a count of 0.

    Raises:
        ValueError: if no document is as long as the order.
    """
    longest = int(np.diff(text.documents).max(initial=0))
    if longest < order:
        raise ValueError(
            f"expected orders up to {longest}, the tokens of the longest document of train with "
            f"its end-of-document token, got {order}; lower the order or use longer documents"
        )
    first, ids = text.first, text.tokens.astype(np.int64)
    keys, contexts, n_contexts = np.arange(vocabulary), np.zeros(vocabulary, dtype=np.int64), 1
    occurrences = np.bincount(ids[~first], minlength=vocabulary)
    for length in range(1, order):
        context = _before(ids, first)
        inside = context != NONE
        longer, ranks, counts = np.unique(
            context[inside] * vocabulary + text.tokens[inside],
            return_inverse=True,
            return_counts=True,
        )
        shortened = np.empty(len(longer), dtype=np.int64)  # each without its first token
        shortened[ranks] = ids[inside]
        stand_before = np.bincount(shortened, minlength=len(keys))
        continuations = np.where(stand_before > 0, stand_before, occurrences)
        yield Level(length, keys, contexts, n_contexts, occurrences, continuations)
        ids = np.full(len(ids), NONE)
        ids[inside] = ranks
        n_contexts, keys, contexts, occurrences = len(keys), longer, longer // vocabulary, counts
    yield Level(order, keys, contexts, n_contexts, occurrences, None)


def discounts(counts: NDArray[np.int64]) -> tuple[float, float, float] | None:
    """Return D1, D2 and D3+ from the counts of n-grams: Chen and Goodman (1999), Eq. 17.

    With n_j the number of n-grams with count j and Y = n_1 / (n_1 + 2 n_2), the discount of count
    j is j - (j + 1) Y n_{j+1} / n_j.

    Returns:
        None where the text does not tell them: a count from 1 to 3 that no n-gram has, or a
        discount outside [0, j], as for the frequent tokens of a small vocabulary.
    """
    n = [int(np.count_nonzero(counts == j)) for j in range(5)]
    if 0 in n[1:4]:
        return None
    share = n[1] / (n[1] + 2 * n[2])
    found = tuple(j - (j + 1) * share * n[j + 1] / n[j] for j in (1, 2, 3))
    return found if all(0 <= d <= j for j, d in enumerate(found, start=1)) else None


class _Estimates(NamedTuple):
    """Of one level: what is left of each n-gram, and of each context for the lower order."""

    kept: NDArray[np.float64]  # (n_ngrams,)
    left: NDArray[np.float64]  # (n_contexts,)


def _estimates(level: Level, counts: NDArray[np.int64]) -> _Estimates:
    found = discounts(counts)
    if found is None:
        LOGGER.warning(
            "n-grams of length %s: their counts give no discounts, so those are %s, as in KenLM",
            *(level.length, ", ".join(map(str, FALLBACK))),
        )
    taken = np.array([0.0, *(found or FALLBACK)])[np.minimum(counts, 3)]
    totals, of_context = (
        np.bincount(level.contexts, weights=weights, minlength=level.n_contexts)
        for weights in (counts, taken)
    )
    followed = totals > 0  # a context at the end of a document may have nothing after it
    left = np.divide(of_context, totals, where=followed, out=np.ones(level.n_contexts))
    kept = np.zeros(len(counts))
    np.divide(counts - taken, totals[level.contexts], where=counts > 0, out=kept)
    return _Estimates(kept, left)


class _Reader:
    """A text that is scored, and how far: n-grams that end at each token, and probabilities."""

    def __init__(self, text: Documents, first: NDArray[np.bool_], vocabulary: int) -> None:
        """Begin with the uniform distribution and the empty context."""
        self.tokens, self.first, self.vocabulary = text.tokens, first, vocabulary
        self.probs = np.full(len(first), 1 / vocabulary)  # of each token, by the lower order
        self.contexts = np.zeros(len(first), dtype=np.int64)  # ids of what precedes each token
        self.ids = self.contexts  # of the n-grams that end with each token

    def look_up(self, level: Level) -> None:
        """Find the n-grams of the next level that end at each token."""
        if level.length > 1:
            self.contexts = _before(self.ids, self.first)
        wanted = self.contexts * self.vocabulary + self.tokens
        places = np.searchsorted(level.keys, wanted)
        there = level.keys[np.minimum(places, len(level.keys) - 1)] == wanted
        self.ids = np.where(there & (self.contexts != NONE), places, NONE)

    def mixed(self, estimates: _Estimates) -> NDArray[np.float64]:
        """Return the probability of each token by this level and the lower order."""
        known, seen = self.ids != NONE, self.contexts != NONE
        left = np.where(seen, estimates.left[np.where(seen, self.contexts, 0)], 1.0)
        return left * self.probs + np.where(known, estimates.kept[np.where(known, self.ids, 0)], 0)


def _before(ids: NDArray[np.int64], first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the id of what ends before each token, NONE where that is another document."""
    before = np.empty_like(ids)
    before[0], before[1:] = NONE, ids[:-1]
    before[first] = NONE
    return before
