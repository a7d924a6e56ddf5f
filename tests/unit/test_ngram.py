"""N-gram LMs against numbers found by hand, the definition, and a brute-force implementation."""

import logging
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from knnlm.lm.ngram import FALLBACK, Documents, discounts, log_probs

EOD = 0


def documents_of(*texts):
    """Return documents that begin with the end-of-document token."""
    pieces = [[EOD, *text] for text in texts]
    return Documents(np.concatenate(pieces), np.cumsum([0, *map(len, pieces)]))


def random_documents(n, *, vocabulary, seed, longest=40):
    """Return documents of frequent and rare tokens, of which some follow others."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        text = rng.zipf(1.4, size=rng.integers(2, longest)) % (vocabulary - 1)
        follows = rng.random(len(text)) < 0.3
        text[1:][follows[1:]] = (3 * text[:-1][follows[1:]] + 1) % (vocabulary - 1)
        texts.append(1 + text)
    return documents_of(*texts)


class BruteForce:
    """Modified Kneser-Ney with dictionaries of tuples, word for word from the definition."""

    def __init__(self, text, *, order, vocabulary):
        self.vocabulary, self.counts, self.discounts = vocabulary, {}, {}
        occurrences, left = defaultdict(Counter), defaultdict(set)
        for start, stop in zip(text.documents, text.documents[1:], strict=False):
            document = tuple(map(int, text.tokens[start:stop]))
            for n in range(1, order + 1):
                for end in range(n, len(document) + 1):
                    if end == 1:
                        continue  # the first token of a document is no target
                    ngram = document[end - n : end]
                    occurrences[n][ngram] += 1
                    if end > n:
                        left[ngram].add(document[end - n - 1])
        for n in range(1, order + 1):
            own = occurrences[n]
            if n < order:
                own = {ngram: len(left[ngram]) or count for ngram, count in own.items()}
            self.counts[n] = own
            n1, n2, n3, n4 = (sum(c == j for c in own.values()) for j in (1, 2, 3, 4))
            assert min(n1, n2, n3) > 0, "the text gives no discounts"
            y = n1 / (n1 + 2 * n2)
            self.discounts[n] = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            assert all(0 <= d <= j for j, d in enumerate(self.discounts[n], start=1))

    def prob(self, token, context):
        """Return p(token | context), of which at most order - 1 tokens count."""
        if len(context) >= len(self.counts):
            context = context[len(context) - len(self.counts) + 1 :]
        return self._prob(token, tuple(map(int, context)))

    def _prob(self, token, context):
        n = len(context) + 1
        lower = self._prob(token, context[1:]) if context else 1 / self.vocabulary
        after = {g: c for g, c in self.counts[n].items() if g[:-1] == context}
        if not after:
            return lower
        total = sum(after.values())
        taken = {g: self.discounts[n][min(c, 3) - 1] for g, c in after.items()}
        own = (*context, int(token))
        kept = (after[own] - taken[own]) / total if own in after else 0
        return kept + sum(taken.values()) / total * lower


def test_the_discounts_are_those_of_the_paper_by_hand():
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4] + [9])  # n1..n4 = 8, 4, 2, 1: Y = 1/2

    assert discounts(counts) == (0.5, 2 - 0.75, 3 - 1.0)


@pytest.mark.parametrize("counts", [[1, 1, 2, 4], [1] * 10 + [2] + [3] * 3])
def test_counts_that_give_no_discounts_are_told(counts, caplog):
    assert discounts(np.array(counts)) is None

    with caplog.at_level(logging.WARNING):
        log_probs(documents_of([1, 2]), [documents_of([1])], orders=[2], vocabulary=3)

    assert "length 2: their counts give no discounts, so those are 0.5, 1.0, 1.5" in caplog.text


def test_a_bigram_lm_by_hand():
    # Bigrams: 0 1 twice, 1 2 twice, 0 2, 2 1; no count of 3, so the discounts are the fallback.
    train = documents_of([1, 2], [1, 2], [2, 1])
    d1, d2, _ = FALLBACK
    # Before 1 stand 0 and 2, before 2 stand 0 and 1: four different bigrams, two for each token.
    lower = dict.fromkeys((1, 2), (2 - d2) / 4 + 2 * d2 / 4 / 4) | {3: 2 * d2 / 4 / 4}
    after_0 = (d1 + d2) / 3  # 0 is followed by 1 twice and by 2 once
    expected = [
        (2 - d2) / 3 + after_0 * lower[1],  # 1 after 0
        (2 - d2) / 2 + d2 / 2 * lower[2],  # 2 after 1
        d1 / 1 * lower[3],  # 3 after 2, which only 1 followed
        lower[2],  # 2 after 3, which train lacks
    ]

    (found,) = log_probs(train, [documents_of([1, 2, 3, 2])], orders=[2], vocabulary=4)

    assert np.isnan(found[0, 0])
    assert np.exp(found[0, 1:]) == pytest.approx(expected, rel=1e-14)


def test_it_is_the_brute_force_implementation_at_every_order():
    train = random_documents(200, vocabulary=200, seed=0)
    text = random_documents(12, vocabulary=200, seed=1)
    orders = [1, 2, 3, 5]

    (found,) = log_probs(train, [text], orders=orders, vocabulary=200)

    for row, order in zip(found, orders, strict=True):
        brute = BruteForce(train, order=order, vocabulary=200)
        for start, stop in zip(text.documents, text.documents[1:], strict=False):
            for at in range(start + 1, stop):
                expected = math.log(brute.prob(text.tokens[at], text.tokens[start:at]))
                assert row[at] == pytest.approx(expected, rel=1e-12)


def test_it_sums_to_one_over_the_vocabulary_on_random_contexts():
    train = random_documents(80, vocabulary=200, seed=2)
    rng = np.random.default_rng(3)
    for length in (0, 1, 4, 9, 15):
        seen = train.tokens[train.documents[5] + 1 :][:length]
        for context in (seen, rng.integers(1, 200, size=length)):
            every = documents_of(*([*context, token] for token in range(200)))
            (found,) = log_probs(train, [every], orders=range(1, 11), vocabulary=200)
            last = found[:, every.documents[1:] - 1]
            assert np.exp(last).sum(axis=1) == pytest.approx(np.ones(10), abs=1e-12)


def test_no_ngram_crosses_the_border_of_a_document():
    train = documents_of([1, 2], [3, 1], [2, 1])
    joined, apart = documents_of([2, 1, 3]), documents_of([2, 1], [3])

    (one,), (other,) = (log_probs(train, [t], orders=[3], vocabulary=5) for t in (joined, apart))

    assert one[0, 3] != other[0, 4]  # 3 after 2 1, and 3 at the beginning


def test_several_texts_are_scored_as_each_alone():
    train = random_documents(30, vocabulary=200, seed=4)
    texts = [random_documents(n, vocabulary=200, seed=n) for n in (3, 5)]

    together = log_probs(train, texts, orders=[2, 4], vocabulary=200)

    for text, found in zip(texts, together, strict=True):
        (alone,) = log_probs(train, [text], orders=[2, 4], vocabulary=200)
        assert np.array_equal(found, alone, equal_nan=True)


def test_an_order_above_what_the_text_has_is_an_error():
    train = documents_of([1, 2, 3], [1])

    with pytest.raises(ValueError, match=r"expected orders up to 4, the tokens of the .*, got 5"):
        log_probs(train, [train], orders=[2, 5], vocabulary=4)
