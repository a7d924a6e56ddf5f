"""Key/value pairs of a datastore as training batches: shuffled, streamed, a pure function.

The order of an epoch is arithmetic from the seed. Each shard is cut into blocks of consecutive
rows; the blocks of all shards are shuffled; a buffer takes the next ones and shuffles their rows.
So a disk is read a block at a time, while a batch mixes rows of many shards, and training goes on
from any update without a state of its own. While one buffer is used, a thread reads the next.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.datastore import Shard
from knnlm.runtime.seeds import numpy_generator

BLOCK_BYTES = 1 << 20  # keys read in one piece: long against a disk's latency


class _Block(NamedTuple):
    """Rows start..stop-1 of one shard."""

    shard: int
    start: int
    stop: int


class _Epoch(NamedTuple):
    """One pass over all pairs: blocks in their order, and where each buffer begins and ends."""

    blocks: NDArray[np.int64]
    borders: NDArray[np.int64]  # (n_buffers + 1,), places in the epoch


class _Buffer(NamedTuple):
    datastore_keys: NDArray[Any]
    datastore_values: NDArray[Any]
    order: NDArray[np.int64]


class ShuffledPairs:
    """An endless, reproducible order of key/value pairs, every pair once an epoch."""

    def __init__(self, shards: Sequence[Shard], *, buffer_mib: int, seed: int) -> None:
        """Cut the shards into blocks; nothing is read yet.

        Args:
            shards: memory-mapped or in memory.
            buffer_mib: keys that are shuffled together, in MiB; twice as many are held.
            seed: of the order.

        Raises:
            ValueError: if there is no pair, or keys and values differ in number.
        """
        for shard in shards:
            if len(shard.datastore_keys) != len(shard.datastore_values):
                raise ValueError(
                    "expected as many keys as values, got "
                    f"{len(shard.datastore_keys):,} and {len(shard.datastore_values):,}"
                )
        self.shards, self.seed = shards, seed
        self.n_entries = sum(len(shard.datastore_keys) for shard in shards)
        if self.n_entries == 0:
            raise ValueError("expected at least one key/value pair, got none")
        row_bytes = shards[0].datastore_keys[:1].nbytes
        rows = max(1, BLOCK_BYTES // row_bytes)
        self.blocks = [
            _Block(number, start, min(start + rows, len(shard.datastore_keys)))
            for number, shard in enumerate(shards)
            for start in range(0, len(shard.datastore_keys), rows)
        ]
        self.per_buffer = max(1, (buffer_mib << 20) // (rows * row_bytes))
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pairs")
        self._waiting: dict[tuple[int, int], Future[_Buffer]] = {}

    def pairs(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return keys (stop - start, dim) and values (stop - start,) at places of the order.

        Args:
            start: first place; place n_entries is the first of the second epoch.
            stop: behind the last place.
        """
        found = []
        while start < stop:
            epoch, place = divmod(start, self.n_entries)
            borders = self._epoch(epoch).borders
            number = int(np.searchsorted(borders, place, side="right")) - 1
            buffer = self._buffer(epoch, number)
            first = place - borders[number]
            rows = buffer.order[first : first + stop - start]
            found.append((buffer.datastore_keys[rows], buffer.datastore_values[rows]))
            start += len(rows)
        keys, values = (np.concatenate(part) for part in zip(*found, strict=True))
        return keys, values.astype(np.int64)

    def _draw_epoch(self, epoch: int) -> _Epoch:
        order = numpy_generator(self.seed, "blocks", epoch).permutation(len(self.blocks))
        sizes = np.array([self.blocks[i].stop - self.blocks[i].start for i in order])
        ends = np.cumsum(sizes)[self.per_buffer - 1 :: self.per_buffer]
        borders = np.unique(np.concatenate([[0], ends, [self.n_entries]]))
        return _Epoch(order, borders)

    def _buffer(self, epoch: int, number: int) -> _Buffer:
        """Return a buffer, and have the next one read meanwhile."""
        last = number + 2 == len(self._epoch(epoch).borders)
        wanted = [(epoch, number), (epoch + 1, 0) if last else (epoch, number + 1)]
        self._waiting = {
            which: self._waiting.get(which) or self._reader.submit(self._read, *which)
            for which in wanted
        }
        return self._waiting[wanted[0]].result()

    def _read(self, epoch: int, number: int) -> _Buffer:
        first = number * self.per_buffer
        chosen = self._epoch(epoch).blocks[first : first + self.per_buffer]
        blocks = [self.blocks[i] for i in chosen]
        places = [(self.shards[b.shard], slice(b.start, b.stop)) for b in blocks]
        keys = np.concatenate([shard.datastore_keys[rows] for shard, rows in places])
        values = np.concatenate([shard.datastore_values[rows] for shard, rows in places])
        order = numpy_generator(self.seed, "rows", epoch, number).permutation(len(keys))
        return _Buffer(keys, values, order)
