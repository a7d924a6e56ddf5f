"""Windows keep every position once; the training order is endless and reproducible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knnlm.lm.windows import ShuffledWindows, windows

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 40)).flatmap(
    lambda sizes: st.tuples(st.just(sizes[0]), st.just(sizes[1]), st.integers(1, sizes[1]))
)


@given(SIZES)
def test_kept_positions_cover_the_stream_exactly_once_in_order(sizes):
    n_tokens, context, stride = sizes

    found = windows(n_tokens, context=context, stride=stride)

    kept = [position for w in found for position in range(w.first, w.stop)]
    assert kept == list(range(n_tokens))


@given(SIZES)
def test_every_window_is_full_and_later_ones_keep_at_most_the_stride(sizes):
    n_tokens, context, stride = sizes

    found = windows(n_tokens, context=context, stride=stride)

    assert {w.stop - w.start for w in found} == {min(context, n_tokens)}
    assert found[0].first == 0
    for window in found[1:]:
        assert 1 <= window.stop - window.first <= stride
        assert window.first - window.start >= context - stride


@pytest.mark.parametrize("stride", [0, 9])
def test_a_stride_outside_the_context_is_refused(stride):
    with pytest.raises(ValueError, match=f"between 1 and the context of 8 tokens, got {stride}"):
        windows(20, context=8, stride=stride)


def test_an_empty_stream_is_refused():
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        windows(0, context=8, stride=4)


@given(n_tokens=st.integers(2, 400), context=st.integers(1, 40), seed=st.integers(0, 3))
def test_training_windows_of_an_epoch_are_distinct_and_have_a_target_for_each_token(
    n_tokens, context, seed
):
    n_tokens = max(n_tokens, context + 1)
    order = ShuffledWindows(n_tokens, context=context, seed=seed)

    for epoch in range(3):
        starts = np.sort(order.starts(epoch * order.per_epoch, order.per_epoch))

        assert (np.diff(starts) == context).all()
        assert starts[0] >= 0
        assert starts[-1] + context + 1 <= n_tokens


def test_offsets_and_orders_differ_between_epochs_and_seeds():
    order = ShuffledWindows(10_000, context=100, seed=0)
    n = order.per_epoch

    first, second = order.starts(0, n), order.starts(n, n)
    other = ShuffledWindows(10_000, context=100, seed=1).starts(0, n)

    assert len({int(starts.min()) for starts in (first, second, other)}) == 3
    assert not np.array_equal(first - first.min(), second - second.min())
    assert not np.array_equal(first, np.sort(first))


def test_any_piece_of_the_order_can_be_asked_for_alone():
    whole = ShuffledWindows(1_000, context=32, seed=5).starts(0, 200)

    again = ShuffledWindows(1_000, context=32, seed=5)

    np.testing.assert_array_equal(again.starts(130, 70), whole[130:])
    np.testing.assert_array_equal(again.starts(0, 10), whole[:10])


def test_text_shorter_than_one_window_is_refused():
    with pytest.raises(ValueError, match=r"at least 9 tokens to train on .* got 8"):
        ShuffledWindows(8, context=8, seed=0)
