"""The statistics of corpora against their definitions."""

import math
from itertools import pairwise

import pytest

from knnlm.text.statistics import (
    DISCOUNT,
    UNKNOWN,
    KneserNey,
    describe,
    gzip_ratio,
    kneser_ney_entropy,
    repeated_share,
    sentence_lengths,
    unigram_entropy,
    zipf_slope,
)

WORDS = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "sat", "on", "the", "cat"]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("context", [("the", "cat"), ("sat", "on"), ("never", "seen")])
def test_kneser_ney_probabilities_sum_to_one(order, context):
    model = KneserNey(WORDS, order=order)

    total = math.fsum(model.p((*context, word)[-order:]) for word in model.vocabulary)

    assert total == pytest.approx(1.0, abs=1e-12)


def test_a_kneser_ney_bigram_is_discounted_and_backs_off_to_continuations():
    model = KneserNey(WORDS, order=2)

    # "the" occurs four times before three words; "cat" follows one word of ten different bigrams.
    bigrams = set(pairwise(WORDS))
    continuations = len({first for first, second in bigrams if second == "cat"})
    kinds = len({second for _, second in bigrams})
    uniform = 1 / (len(set(WORDS)) + 1)
    unigram = (continuations - DISCOUNT + DISCOUNT * kinds * uniform) / len(bigrams)
    assert model.p(("the", "cat")) == pytest.approx((2 - DISCOUNT + DISCOUNT * 3 * unigram) / 4)


def test_entropy_is_the_mean_cost_of_the_held_out_words():
    held_out = ["the", "cat", "flew"]
    model = KneserNey(WORDS, order=2)

    actual = kneser_ney_entropy(WORDS, held_out, order=2)

    expected = [math.log2(model.p(("the", "cat"))), math.log2(model.p(("cat", UNKNOWN)))]
    assert actual == pytest.approx(-sum(expected) / 2)


def test_the_zipf_slope_of_counts_that_fall_as_one_over_rank_is_minus_one():
    words = [f"w{rank}" for rank in range(1, 400) for _ in range(round(40_000 / rank))]

    assert zipf_slope(words) == pytest.approx(-1.0, abs=0.01)


def test_sentences_end_at_stops_and_headings_are_none():
    text = " \n = Title = \n \n One two . Three four five . \n Six ( 1 @.@ 5 m ) seven ? \n"

    assert sentence_lengths(text) == [3, 4, 9]


def test_repeated_ngrams_are_those_of_train():
    assert repeated_share(list("abcd"), list("xabcy"), n=2) == 2 / 4
    assert repeated_share(["a"], ["a"], n=2) == 0.0


def test_the_entropy_of_equally_frequent_words_is_their_logarithm():
    assert unigram_entropy(list("abcd") * 3) == pytest.approx(2.0)


def test_repeated_text_shrinks_more():
    assert gzip_ratio("to be or not to be " * 100) > 10 * gzip_ratio("to be or not")


def test_a_description_counts_words_types_and_unseen_words():
    text = " ".join(f"w{i} w{i % 7}" for i in range(50))

    actual = describe(text, "w1 w2 new 12")

    assert actual["words"] == 100
    assert actual["types"] == 50
    assert actual["hapax_share"] == pytest.approx(43 / 50)
    assert actual["oov_rate"] == 0.5


def test_an_empty_text_is_refused():
    with pytest.raises(ValueError, match="expected words in train"):
        describe("", "a b")
