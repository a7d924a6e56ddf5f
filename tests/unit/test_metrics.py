"""Metrics against their definitions."""

import numpy as np
import pytest

from knnlm.evidence.metrics import (
    hits_at_k,
    perplexity_per_raw_word,
    perplexity_per_token,
    perplexity_per_word,
)

NLL = np.log([2.0, 4.0, 8.0, 16.0])  # nats: bits 1, 2, 3, 4
WORDS = np.array([1, 0, 1, 0], dtype=np.uint8)
LINES = np.array([0, 0, 0, 1], dtype=np.uint8)


def test_a_uniform_guess_among_v_has_perplexity_v():
    nll = np.full(7, np.log(50))

    assert perplexity_per_token(nll) == pytest.approx(50, rel=1e-12)


def test_perplexity_per_token_is_the_geometric_mean_of_the_inverse_probabilities():
    assert perplexity_per_token(NLL) == pytest.approx(2 ** (10 / 4), rel=1e-12)


def test_a_line_end_counts_as_a_word():
    assert perplexity_per_word(NLL, WORDS, LINES) == pytest.approx(2 ** (10 / 3), rel=1e-12)


def test_raw_words_leave_line_ends_out():
    assert perplexity_per_raw_word(NLL, WORDS) == pytest.approx(2 ** (10 / 2), rel=1e-12)


def test_perplexity_per_word_does_not_depend_on_where_the_tokens_are_cut():
    merged = perplexity_per_word(
        np.array([NLL[:2].sum(), NLL[2:].sum()]), np.array([1, 1]), np.array([0, 1])
    )

    assert merged == pytest.approx(perplexity_per_word(NLL, WORDS, LINES), rel=1e-12)


def test_small_counts_do_not_overflow_when_many_are_added():
    nll = np.full(1000, 0.5)
    words, lines = np.full(1000, 200, dtype=np.uint8), np.full(1000, 100, dtype=np.uint8)

    assert perplexity_per_word(nll, words, lines) == pytest.approx(np.exp(0.5 / 300), rel=1e-12)


def test_a_text_without_words_is_an_error():
    with pytest.raises(ValueError, match="expected words and line ends in the text, got none in 4"):
        perplexity_per_word(NLL, np.zeros(4, np.uint8), np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="expected tokens in the text, got none in 0"):
        perplexity_per_token(np.empty(0))


def test_counts_of_another_text_are_an_error():
    with pytest.raises(ValueError, match=r"got shapes \(4,\) and \(3,\)"):
        perplexity_per_raw_word(NLL, WORDS[:3])


def test_a_hit_is_a_target_among_the_first_k_values():
    values = np.array([[5, 6, 7], [8, 9, 5], [-1, -1, -1]], dtype=np.int32)
    targets = np.array([5, 5, 5], dtype=np.int32)

    assert hits_at_k(values, targets, k=1).tolist() == [True, False, False]
    assert hits_at_k(values, targets, k=3).tolist() == [True, True, False]


@pytest.mark.parametrize("k", [0, 4])
def test_a_k_beyond_what_was_stored_is_an_error(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, 3\].*got {k}; raise search.k"):
        hits_at_k(np.zeros((2, 3), np.int32), np.zeros(2, np.int32), k=k)


def test_targets_of_other_queries_are_an_error():
    with pytest.raises(ValueError, match="expected 2 targets, one a query, got 3"):
        hits_at_k(np.zeros((2, 3), np.int32), np.zeros(3, np.int32), k=1)
