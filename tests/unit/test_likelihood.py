"""log p(target) is that of a softmax in float64, however many rows are computed at a time."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from knnlm.lm.likelihood import log_likelihood, log_likelihood_in_tiles

VOCABULARY = 30


def drawn(rows, *, scale=9.0):
    generator = torch.Generator().manual_seed(rows)
    logits = scale * torch.randn(rows, VOCABULARY, generator=generator)
    return logits, torch.randint(VOCABULARY, (rows,), generator=generator)


def test_it_is_the_logarithm_of_the_softmax():
    logits, targets = drawn(12)

    actual = log_likelihood(logits, targets)

    weights = np.exp(logits.double().numpy())
    expected = np.log(weights[np.arange(12), targets] / weights.sum(axis=1))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@given(rows=st.integers(1, 20), logits_at_a_time=st.integers(1, 200))
def test_tiles_do_not_change_a_bit(rows, logits_at_a_time):
    logits, targets = drawn(rows)

    actual = log_likelihood_in_tiles(
        lambda at: logits[at], targets, vocabulary=VOCABULARY, logits_at_a_time=logits_at_a_time
    )

    np.testing.assert_array_equal(actual, log_likelihood(logits, targets))


def test_no_tile_holds_more_logits_than_asked_for():
    logits, targets = drawn(20)
    held = []

    def logits_of(rows):
        held.append(logits[rows].numel())
        return logits[rows]

    log_likelihood_in_tiles(logits_of, targets, vocabulary=VOCABULARY, logits_at_a_time=100)

    assert max(held) <= 100
    assert sum(held) == logits.numel()
