"""Pairs come shuffled across shards, every one once an epoch, the same from wherever one starts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knnlm.retrieval import pairs as module
from knnlm.retrieval.datastore import Shard
from knnlm.retrieval.pairs import ShuffledPairs


def shards_of(n, *, rows=1000):
    """Return shards whose key says which entry it is, and whose value is twice that number."""
    ids = np.arange(n)
    keys = np.stack([ids % 1000, ids // 1000], axis=1).astype(np.float16)
    values = (2 * ids).astype(np.uint32)
    return [Shard(i, keys[i : i + rows], values[i : i + rows]) for i in range(0, n, rows)]


def ids_of(keys):
    return keys[:, 0].astype(np.int64) + 1000 * keys[:, 1].astype(np.int64)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 64)  # 16 rows of two fp16


def stream(n, *, seed=0, per_buffer=5, rows=1000):
    pairs = ShuffledPairs(shards_of(n, rows=rows), buffer_mib=1, seed=seed)
    pairs.per_buffer = per_buffer
    return pairs


@given(
    n=st.integers(1, 400),
    rows=st.integers(1, 150),
    per_buffer=st.integers(1, 9),
    batch=st.integers(1, 130),
)
def test_every_epoch_holds_every_pair_once_and_keys_keep_their_values(n, rows, per_buffer, batch):
    pairs = stream(n, per_buffer=per_buffer, rows=rows)

    found = [pairs.pairs(at, min(at + batch, 2 * n)) for at in range(0, 2 * n, batch)]

    keys, values = (np.concatenate(part) for part in zip(*found, strict=True))
    assert sorted(ids_of(keys[:n])) == sorted(ids_of(keys[n:])) == list(range(n))
    np.testing.assert_array_equal(values, 2 * ids_of(keys))
    assert values.dtype == np.int64


def test_a_batch_is_the_same_wherever_training_starts():
    forward, at_once = stream(3000), stream(3000)

    batches = [forward.pairs(i, i + 128)[1] for i in range(0, 9000, 128)]

    np.testing.assert_array_equal(at_once.pairs(50 * 128, 51 * 128)[1], batches[50])
    np.testing.assert_array_equal(at_once.pairs(3 * 128, 4 * 128)[1], batches[3])


def test_the_order_is_another_in_each_epoch_and_for_each_seed():
    first, second = stream(3000, seed=0), stream(3000, seed=1)

    epochs = [first.pairs(0, 3000)[1], first.pairs(3000, 6000)[1], second.pairs(0, 3000)[1]]

    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert np.mean(epochs[i] == epochs[j]) < 0.05


def test_the_rows_of_a_single_block_too():
    first, second = stream(16, seed=0), stream(16, seed=1)

    orders = [first.pairs(0, 16)[1], first.pairs(16, 32)[1], second.pairs(0, 16)[1]]

    assert len({tuple(order) for order in orders}) == 3


def test_a_batch_mixes_shards_and_does_not_follow_the_text():
    pairs = stream(8000, per_buffer=100)  # a fifth of the pairs in a buffer

    ids = ids_of(pairs.pairs(0, 256)[0])

    assert len(np.unique(ids // 1000)) == 8
    assert abs(np.corrcoef(np.arange(256), ids)[0, 1]) < 0.3
    assert np.mean(np.diff(ids) == 1) < 0.05


def test_no_pairs_are_an_error():
    with pytest.raises(ValueError, match="at least one key/value pair"):
        ShuffledPairs([], buffer_mib=1, seed=0)


def test_keys_without_values_are_an_error():
    shard = Shard(0, np.zeros((3, 2), np.float16), np.zeros(2, np.uint16))

    with pytest.raises(ValueError, match="got 3 and 2"):
        ShuffledPairs([shard], buffer_mib=1, seed=0)
