"""Neighbors in nested shares of a datastore: real ones and those of an index of each share.

Xu et al. (2023), Table 3 and Figure 3. One job searches all shares below 1; the whole datastore
has its neighbors already. What is kept of a neighbor is its distance, the one by codes where codes
chose it, and whether its value is the target: all that a probability of the target needs.

Real neighbors of all shares cost about one exact search, because each share holds the next smaller
one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from knnlm.experiments.approximate_search.half_precision import search_half
from knnlm.experiments.shared.masks import APPROXIMATE, HALF, REAL, WHOLE, file_of
from knnlm.lm.scoring import Queries, load_queries
from knnlm.retrieval.datastore import Datastore, open_datastore, sample_keys
from knnlm.retrieval.encoder import available_device
from knnlm.retrieval.engines.exact import full_distances
from knnlm.retrieval.engines.inverted_file import index_of, search_index
from knnlm.retrieval.engines.nearest import NO_LEVEL
from knnlm.retrieval.engines.nested import search_nested
from knnlm.retrieval.engines.settings import check_index
from knnlm.retrieval.neighbors import ROUGH, by_distance, write_block
from knnlm.retrieval.sampling import evenly_spaced
from knnlm.retrieval.shares import LEVELS, first_of_level, share_levels
from knnlm.runtime.artifacts import atomic_path, identity, require_origin
from knnlm.runtime.making import Target, each_missing, making

Unit = tuple[str, str, str]  # what is searched: a share, a mask and a split


def search_masks(
    target: Target,
    *,
    datastore: Path,
    queries: Mapping[str, Path],
    index: Mapping[str, Any],
    search: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Find the neighbors of queries in each share, really and by an index, and publish them.

    A search that was interrupted goes on with the missing share or split. Memory: a slice of keys
    in fp32, the codes of a share, and 28 bytes x k for each query.

    Args:
        target: what is made; its seed is that of the shares and of the indexes.
        datastore: the folder of the whole datastore.
        queries: folders by split.
        index: the entry of the config, of an inverted file of the metric l2.
        search: the block of the config: k, keys_mib and scores_mib.
        settings: the block of the config: `shares`, ascending, below 1; `queries`, how many of a
            split, evenly spaced, all if there is no number; `scaled_lists`, see `index_settings`.

    Raises:
        ValueError: if a share has fewer entries than k.
        ArtifactError: if the queries are of another model.
    """
    store = open_datastore(datastore)
    for folder in queries.values():
        require_origin(folder, kind="queries", role="model", expected=store.made_from["model"])
    made_from = {f"queries_{split}": identity(at, kind="queries") for split, at in queries.items()}
    made_from["datastore"] = identity(datastore, kind="datastore")
    recorded = {**settings, "index": dict(index), "k": search["k"]}
    with making(target, kind="masks", made_from=made_from, settings=recorded) as made:
        of_split = {
            split: Asked.of(folder, store, settings["queries"]) for split, folder in queries.items()
        }
        job = _Search(made.folder, store, dict(search), dict(index), dict(settings), target.seed)
        units = job.units(of_split)
        for unit in each_missing(units, label="masks", name="searches"):
            job.find(unit, of_split[unit[2]])
        for waiting in made.folder.glob("*.faiss"):
            waiting.unlink()
        made.contents |= {"queries": {s: len(asked.targets) for s, asked in of_split.items()}}


@dataclass(frozen=True)
class Asked:
    """Queries of one split: hidden states (n, dim) and the tokens that did follow (n,)."""

    hidden: NDArray[np.float32]
    targets: NDArray[np.int32]

    @classmethod
    def of(cls, folder: Path, store: Datastore, count: int | None) -> "Asked":
        """Return so many evenly spaced queries of a folder."""
        scored: Queries = load_queries(folder)
        places = evenly_spaced(scored.n_queries, count)
        hidden = np.array(scored.hidden(store.settings["site"])[places])
        return cls(hidden, np.array(scored.targets[places]))


@dataclass
class _Search:
    folder: Path
    store: Datastore
    search: dict[str, Any]
    index: dict[str, Any]
    settings: dict[str, Any]
    seed: int

    def units(self, splits: Mapping[str, Asked]) -> dict[Unit, Path]:
        """Return the file of each unit; the real search of a split makes those of every share."""
        shares = [str(share) for share in self.settings["shares"]]
        units = [(shares[-1], REAL, split) for split in splits]
        units += [(share, APPROXIMATE, split) for share in shares for split in splits]
        units += [(WHOLE, HALF, split) for split in splits]
        return {unit: self.folder / file_of(*unit) for unit in units}

    def find(self, unit: Unit, asked: Asked) -> None:
        """Search what a unit names, and write its file."""
        share, mask, split = unit
        if mask == REAL:
            shares = self.settings["shares"]
            found = real_neighbors(asked.hidden, self.store, shares, search=self.search)
            for one, lists in zip(shares, found, strict=True):
                self._write((str(one), mask, split), lists, asked)
        elif mask == HALF:
            chosen = {"k": self.search["k"], "device": available_device()}
            ids, distances = search_half(asked.hidden, self.store, **chosen)
            values = self.store.values(ids)
            self._write(unit, {"ids": ids, "distances": distances, "values": values}, asked)
        else:
            self._write(unit, self._approximate(share, asked), asked)

    def _write(self, unit: Unit, lists: Mapping[str, NDArray[Any]], asked: Asked) -> None:
        kept = {name: lists[name] for name in ("distances", ROUGH) if name in lists}
        kept["matches"] = lists["values"] == asked.targets[:, None]
        write_block(self.folder / file_of(*unit), kept)

    def _approximate(self, share: str, asked: Asked) -> dict[str, NDArray[Any]]:
        """Return what the index of a share finds, with distances by codes and full ones."""
        waiting = self.folder / f"{share}.faiss"
        if not waiting.is_file():
            with atomic_path(waiting) as temporary:
                faiss.write_index(self._build(float(share)), str(temporary))
        probes = {"k": self.search["k"], "n_probes": self.index["n_probes"]}
        index = faiss.read_index(str(waiting))
        ids, rough = search_index(asked.hidden, index, self.store, **probes)
        lists = {"ids": ids, ROUGH: rough, "values": self.store.values(ids)}
        lists["distances"] = full_distances(asked.hidden, self.store, ids)
        return by_distance(lists)

    def _build(self, share: float) -> faiss.IndexIVF:
        """Return an index of the entries of a share, trained on a sample of them."""
        rows = np.flatnonzero(share_levels(self.store.entries, [share]) == 0)
        settings = index_settings(self.index, share, scaled_lists=self.settings["scaled_lists"])
        check_index(settings, n_entries=len(rows), dim=self.store.dim)
        sample = sample_keys(self.store, settings["train_keys"], seed=self.seed, among=rows)
        index = index_of(sample, settings, seed=self.seed)
        for ids, keys in _selected(self.store, rows):
            index.add_with_ids(keys, ids)
        return index


def index_settings(index: Mapping[str, Any], share: float, *, scaled_lists: bool) -> dict[str, Any]:
    """Return the settings of the index of a share.

    With as many lists as the whole datastore has, a small share of a small datastore has fewer
    keys in the lists that are read than neighbors are wanted. With `scaled_lists` there are fewer
    lists, of about the same length, but at least twice as many as are read.
    """
    if not scaled_lists:
        return dict(index)
    lists = max(2 * index["n_probes"], round(share * index["n_centroids"]))
    return {**index, "n_centroids": min(lists, index["n_centroids"])}


def real_neighbors(
    queries: NDArray[np.float32],
    store: Datastore,
    shares: Sequence[float],
    *,
    search: Mapping[str, Any],
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the k nearest in each of several nested shares: ids, distances and values (n, k).

    Args:
        queries: (n_queries, dim).
        store: the whole datastore.
        shares: ascending.
        search: k; keys_mib and scores_mib bound the keys and the scores held at a time.

    Raises:
        ValueError: if the smallest share has fewer than k entries.
    """
    k, levels = search["k"], share_levels(store.entries, shares)
    if (levels == 0).sum() < k:
        raise ValueError(
            f"expected at least k = {k:,} entries in the smallest share of {store.folder}, got "
            f"{(levels == 0).sum():,}; lower search.k, or raise the smallest of the shares"
        )
    tiles = {
        "slice_rows": max(1, (search["keys_mib"] << 20) // (4 * store.dim)),
        "tile_bytes": search["scores_mib"] << 20,
        "device": available_device(),
    }
    ids, distances = search_nested(queries, store, levels, k=k, **tiles)
    of_found = np.where(ids < 0, NO_LEVEL, levels[ids]).astype(np.uint8)
    found = {"ids": ids, "distances": distances, "values": store.values(ids), LEVELS: of_found}
    for level in range(len(shares)):
        yield first_of_level(found, level, k=k)


def _selected(
    store: Datastore, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield some entries of a datastore, ids and keys in fp32, slice by slice in order."""
    for start, keys in store.slices():
        first, last = np.searchsorted(rows, [start, start + len(keys)])
        if last > first:
            yield rows[first:last], np.ascontiguousarray(keys[rows[first:last] - start])
