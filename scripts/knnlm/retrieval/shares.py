"""Nested shares of one datastore, and what was found in each of them.

A share is a seeded subset of the entries (see `Entries`), and a larger one holds every entry of a
smaller one. So one list of neighbors serves them all: it has every entry that is among the k
nearest of a query in any share, with its level, the number of the smallest share that holds it;
the neighbors in share j are the first k of the list whose level is at most j. NumPy alone, so
that readers start in a moment.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.engines.nearest import NO_LEVEL, below_largest
from knnlm.retrieval.neighbors import (
    ARRAYS,
    ROUGH,
    Neighbors,
    blocks_of,
    by_distance,
    read_arrays,
)
from knnlm.retrieval.sampling import BLOCK, Entries, entries_of, evenly_spaced
from knnlm.runtime.artifacts import ArtifactError, read_manifest, rebuild_hint

KIND = "share_neighbors"
LEVELS = "levels"


def share_levels(entries: Entries, shares: Sequence[float]) -> NDArray[np.uint8]:
    """Return the level of each entry of a datastore, (n_entries,); NO_LEVEL if no share holds it.

    Args:
        entries: of the datastore.
        shares: of the positions of the stream, ascending, none above that of the datastore.

    Raises:
        ValueError: if they are not as above.
    """
    ascending = all(low < high for low, high in itertools.pairwise(shares))
    if not shares or not ascending or shares[-1] > entries.share or len(shares) >= NO_LEVEL:
        raise ValueError(
            f"expected shares of a datastore that ascend, up to its own {entries.share}, got "
            f"{list(shares)}"
        )
    levels = np.empty(len(entries), np.uint8)
    nested = [Entries(entries.n_positions, share, entries.seed) for share in shares]
    for first in range(0, len(entries), BLOCK):
        ids = np.arange(first, min(first + BLOCK, len(entries)))
        positions = entries.positions(ids)
        levels[ids] = len(shares) - sum(held.holds(positions) for held in nested)
    levels[levels == len(shares)] = NO_LEVEL
    return levels


@dataclass(frozen=True)
class ShareNeighbors:
    """Neighbors in every share of a datastore.

    Attributes:
        folder: of the artifact.
        contents: of its manifest.
        shares: ascending.
        blocks: arrays (n_queries of the block, n) of each block of queries.
    """

    folder: Path
    contents: dict[str, Any]
    blocks: Sequence[dict[str, NDArray[Any]]]

    @property
    def shares(self) -> list[float]:
        """The shares, ascending."""
        return self.contents["shares"]

    def n_entries(self, share: float) -> int:
        """Return the number of entries of a share."""
        entries = entries_of(self.contents)
        return len(Entries(entries.n_positions, share, entries.seed))

    def of(self, share: float, *, rough: bool = False) -> Neighbors:
        """Return the k nearest neighbors in a share; ids are entries of the whole datastore.

        Args:
            share: one of those that were searched.
            rough: whether the distances by codes are returned too.

        Raises:
            ArtifactError: if the share was not searched, or distances by codes were not kept.
        """
        if share not in self.shares:
            raise ArtifactError(
                f"expected one of the shares {self.shares} of {self.folder}, got {share}; add it "
                "to `shares` of the datastore and search again"
            )
        if rough and ROUGH not in self.blocks[0]:
            raise ArtifactError(f"expected {self.folder} to have distances by codes, it has none")
        level, k = self.shares.index(share), self.contents["k"]
        found = [by_distance(first_of_level(block, level, k=k)) for block in self.blocks]
        names = [*ARRAYS, *([ROUGH] if rough else [])]
        arrays = {name: np.concatenate([block[name] for block in found]) for name in names}
        if self.contents["search"].get("metric") == "ip":
            compared = {"distances", ROUGH} & arrays.keys()
            arrays |= {name: below_largest(arrays[name]) for name in compared}
        places = evenly_spaced(self.contents["of_queries"], self.contents["n_queries"])
        return Neighbors(**arrays, places=places, entries=entries_of(self.contents))


def load_share_neighbors(folder: Path) -> ShareNeighbors:
    """Read the neighbors in every share.

    Raises:
        ArtifactError: naming the file that is missing or cannot be read.
    """
    contents = read_manifest(folder, kind=KIND)["contents"]
    files = blocks_of(folder, contents["n_queries"], contents["block_queries"])
    blocks = [read_arrays(path) for path, _ in files]
    for (path, rows), block in zip(files, blocks, strict=True):
        if len(block["ids"]) != rows.stop - rows.start:
            raise ArtifactError(
                f"expected {path} to have {rows.stop - rows.start:,} queries, got "
                f"{len(block['ids']):,}; {rebuild_hint(folder)}"
            )
    return ShareNeighbors(folder, contents, blocks)


def first_of_level(
    block: dict[str, NDArray[Any]], level: int, *, k: int
) -> dict[str, NDArray[Any]]:
    """Return the first k of each row whose level is at most the given one, filled as missing."""
    inside = block[LEVELS] <= level
    kept = inside & (np.cumsum(inside, axis=1, dtype=np.int32) <= k)
    counts = kept.sum(axis=1)
    places = np.arange(k) < counts[:, None]
    missing = {"ids": -1, "distances": np.inf, "values": -1, ROUGH: np.inf}
    found = {}
    for name, array in block.items():
        if name != LEVELS:
            dtype = ARRAYS.get(name, array.dtype)  # small ids are stored in 32 bits
            found[name] = np.full((len(array), k), missing[name], dtype)
            found[name][places] = array[kept]
    return found
