"""Samples: which positions of the train split a datastore holds, and which queries are searched.

NumPy alone, so that readers start in a moment.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.seeds import numpy_generator

BLOCK = 1 << 20  # positions of which a share is drawn together; streams of fewer are one block


def evenly_spaced(n: int, wanted: int | None) -> NDArray[np.int64]:
    """Return evenly spaced places among n: as they lie in the text, of all documents.

    Args:
        n: how many there are.
        wanted: how many are wanted; all if None, or if there are fewer.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f"expected at least one of {n:,} places to be wanted, got {wanted:,}")
    count = n if wanted is None else min(wanted, n)
    return np.arange(count, dtype=np.int64) * n // max(count, 1)


@dataclass(frozen=True)
class Entries:
    """Which positions of a token stream are the entries of a datastore, in the order of the stream.

    A share below 1 is a random subset without replacement, drawn from each block of positions
    and nested: a larger share of the same seed holds every position of a smaller one. Where the
    row of an entry lies in the stream is arithmetic, not data, however long the stream is.

    Attributes:
        n_positions: of the stream, but for the last token, which has no next one.
        share: of them that are entries, in (0, 1].
        seed: of the subset.
    """

    n_positions: int
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a share that is none, or that holds no entry."""
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of a datastore must be in (0, 1], got {self.share}")
        if len(self) < 1:
            raise ValueError(
                f"a share of {self.share} of {self.n_positions:,} positions holds no entry; raise "
                "share or store more text"
            )
        object.__setattr__(self, "_drawn", lru_cache(maxsize=2)(self._draw))

    def __len__(self) -> int:
        """Return the number of entries."""
        blocks, rest = divmod(self.n_positions, BLOCK)
        return blocks * round(self.share * BLOCK) + round(self.share * rest)

    def _draw(self, block: int) -> NDArray[np.int64]:
        """Return the positions of a block that are entries, ascending."""
        first = block * BLOCK
        size = min(BLOCK, self.n_positions - first)
        order = numpy_generator(self.seed, "share", block).permutation(size)
        return first + np.sort(order[: round(self.share * size)])

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of entries in the stream, in the shape of `ids`; -1 where it is."""
        if self.share == 1:
            return ids
        found = np.full(ids.size, -1, dtype=np.int64)
        flat, per_block = ids.ravel(), max(1, round(self.share * BLOCK))
        for block, places in group_by_range(flat, per_block):
            found[places] = self._drawn(block)[flat[places] - block * per_block]
        return found.reshape(ids.shape)

    def holds(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which positions of the stream are entries, (n,) as `positions`."""
        held = np.full(positions.size, self.share == 1)
        if self.share < 1:
            for block, places in group_by_range(positions, BLOCK):
                drawn = np.zeros(BLOCK, np.bool_)
                drawn[self._drawn(block) - block * BLOCK] = True
                held[places] = drawn[positions[places] - block * BLOCK]
        return held

    def called(self, name: str) -> str:
        """Return how an error calls a datastore: with its share, if it is not whole."""
        return name if self.share == 1 else f"{name} at a share of {self.share}"

    def described(self) -> dict[str, Any]:
        """Return what the `contents` of a manifest say of it, for `entries_of`."""
        return {"n_positions": self.n_positions, "share": self.share, "seed": self.seed}


def entries_of(contents: Mapping[str, Any]) -> Entries:
    """Return which positions are entries, from the `contents` of a datastore or of neighbors."""
    return Entries(**contents["entries"])


def group_by_range(ids: NDArray[np.int64], n_rows: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield (number of a range of `n_rows` ids, places of `ids` that lie in it), in order.

    Ids below 0 are left out. With it everything reads a datastore in order, whatever is asked.
    """
    numbers = ids // n_rows
    small = np.int16 if ids.max(initial=0) // n_rows < 1 << 15 else np.int64
    order = np.argsort(numbers.astype(small), kind="stable")  # 16 bits: a radix sort
    borders = np.flatnonzero(np.diff(numbers[order])) + 1
    for places in np.split(order, borders):
        if len(places) and numbers[places[0]] >= 0:
            yield int(numbers[places[0]]), places
