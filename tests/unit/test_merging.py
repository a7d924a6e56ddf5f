"""Merged lists of neighbors are those of the definition: ties, missing ones, ids of any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_artifacts import datastore_of, files_of, nearest_by_definition, to_make

import knnlm.retrieval.neighbors
from knnlm.retrieval.engines.exact import search_exact
from knnlm.retrieval.engines.nearest import LARGEST_PACKED_ID, no_neighbors, sort_neighbors
from knnlm.retrieval.neighbors import (
    ARRAYS,
    blocks_of,
    by_distance,
    load_neighbors,
    merge_lists,
    merge_neighbors,
    write_block,
    write_recall,
)
from knnlm.retrieval.parts import Part
from knnlm.retrieval.sampling import Entries
from knnlm.runtime.artifacts import write_manifest

HUGE = 2**40
BORDERS = [0, LARGEST_PACKED_ID - 20, HUGE]  # ids that fit, that straddle and that do not fit


def by_definition(found, k):
    """Sort each row's (distance, id, value) in Python; missing ones last."""
    rows = []
    for ids, distances, values in zip(*found, strict=True):
        entries = [e for e in zip(distances, ids, values, strict=True) if e[1] >= 0]
        entries = sorted(entries)[:k]
        rows.append(entries + [(np.inf, -1, -1)] * (k - len(entries)))
    return [[[entry[place] for entry in row] for row in rows] for place in (1, 0, 2)]


@st.composite
def lists(draw):
    """Draw lists of 1 to 4 parts: distances from a few, so that most are tied."""
    first = draw(st.sampled_from(BORDERS))
    n_queries, k, parts = (draw(st.integers(1, high)) for high in (3, 6, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    ids = np.stack([rng.permutation(40)[: k * parts] for _ in range(n_queries)])
    distances = rng.choice(np.float32([0, 0.5, 1, 7e30, np.inf]), ids.shape)
    missing = rng.random(ids.shape) < draw(st.sampled_from([0, 0.3, 1]))
    values = (ids * 31 % 17).astype(np.int32)
    ids, distances = np.where(missing, -1, ids + first), np.where(missing, np.inf, distances)
    return ids, distances.astype(np.float32), np.where(missing, -1, values), k


@settings(deadline=None)
@given(lists())
def test_merging_is_sorting_by_distance_then_id(drawn):
    *found, k = drawn
    merged = merge_lists(dict(zip(ARRAYS, found, strict=True)), k=k)

    for name, expected in zip(ARRAYS, by_definition(found, k), strict=True):
        np.testing.assert_array_equal(merged[name], expected)
    types = tuple(merged[name].dtype for name in ARRAYS)
    assert types == (np.int64, np.float32, np.int32)


@settings(deadline=None)
@given(lists())
def test_small_and_large_ids_take_the_same_order(drawn):
    ids, distances, _, k = drawn
    larger = np.where(ids < 0, -1, ids + HUGE)

    expected_ids, expected = sort_neighbors(ids, distances, k=k)
    actual_ids, actual = sort_neighbors(larger, distances, k=k)

    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(np.where(actual_ids < 0, -1, actual_ids - HUGE), expected_ids)


def test_rough_distances_choose_and_distances_order():
    found = {
        "ids": np.array([[5, 1, 9, 7]]),
        "rough": np.float32([[3, 1, 4, 1]]),
        "distances": np.float32([[2, 9, 0, 4]]),
        "values": np.int32([[50, 10, 90, 70]]),
    }

    merged = by_distance(merge_lists(found, k=3))

    np.testing.assert_array_equal(merged["ids"], [[5, 7, 1]])  # 9 is nearest, but not rough
    np.testing.assert_array_equal(merged["distances"], [[2, 4, 9]])
    np.testing.assert_array_equal(merged["values"], [[50, 70, 10]])
    np.testing.assert_array_equal(merged["rough"], [[3, 1, 1]])


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("engine", ["cpu", "cpu:0"])
def test_equal_keys_in_several_parts_are_ordered_by_id_also_at_the_last_place(count, engine):
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((640, 12)).astype(np.float16)
    keys[rng.permutation(640)[:200]] = keys[3]  # in every shard, as first positions of windows
    queries = np.concatenate([keys[3:4], rng.standard_normal((5, 12))]).astype(np.float32)
    store = datastore_of(keys, rows_per_shard=64)

    found = [
        search_exact(queries, store.part(Part(i, count)), k=30, device=engine) for i in range(count)
    ]
    ids, distances = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    merged = merge_lists({"ids": ids, "distances": distances, "values": store.values(ids)}, k=30)

    expected, _ = nearest_by_definition(queries, keys, 30)
    whole_ids, whole = search_exact(queries, store, k=30, device=engine)
    np.testing.assert_array_equal(merged["ids"], expected)
    np.testing.assert_array_equal(merged["ids"], whole_ids)
    np.testing.assert_array_equal(merged["distances"], whole)
    np.testing.assert_array_equal(merged["values"], store.values(whole_ids))


def write_part(folder, number, *, first, n_queries=50, k=4, block_queries=8, n_parts=3):
    """Write what a part of n_parts, each with a billion rows, found for random queries."""
    rng = np.random.default_rng(number)
    for path, rows in blocks_of(folder, n_queries, block_queries):
        n = rows.stop - rows.start
        ids = first + rng.permuted(np.tile(np.arange(0, 10**9, 10**8), (n, 1)), axis=1)[:, :k]
        distances = np.sort(rng.integers(0, 5, (n, k)), axis=1).astype(np.float32)
        write_block(
            path, {"ids": ids, "distances": distances, "values": (ids % 1000).astype(np.int32)}
        )
    write_recall(folder / "recall.npz", np.arange(0), *no_neighbors(0, 0))
    write_manifest(
        folder,
        kind="neighbors_part",
        settings={"k": k},
        made_from={},
        contents={
            "n_queries": n_queries,
            "of_queries": n_queries,
            "search": {"engine": "exact", "metric": "l2"},
            "entries": Entries(n_parts * 10**9).described(),
            "block_queries": block_queries,
            "k": k,
            "n_entries": n_parts * 10**9,
            "rows": [first, first + 10**9],
        },
    )
    return folder


def test_parts_of_more_than_2_to_the_32_rows_are_merged_block_by_block(tmp_path):
    parts = [write_part(tmp_path / f"part{i}", i, first=i * 10**9, n_parts=5) for i in range(5)]

    merge_neighbors(to_make(tmp_path / "merged"), parts=parts)

    merged = load_neighbors(tmp_path / "merged")
    assert merged.ids.max() > 2**32
    for path, rows in blocks_of(tmp_path / "merged", 50, 8):
        blocks = [np.load(part / path.name) for part in parts]
        found = [np.concatenate([block[name] for block in blocks], axis=1) for name in ARRAYS]
        for name, expected in zip(ARRAYS, by_definition(found, 4), strict=True):
            np.testing.assert_array_equal(getattr(merged, name)[rows], expected)


def test_a_merge_that_was_interrupted_goes_on_with_the_missing_blocks(tmp_path, monkeypatch):
    parts = [write_part(tmp_path / f"part{i}", i, first=i * 10**9) for i in range(3)]
    merge_neighbors(to_make(tmp_path / "undisturbed" / "merged"), parts=parts)
    written = []

    def dies_at_the_fourth(path, arrays):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        write_block(path, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(knnlm.retrieval.neighbors, "write_block", dies_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            merge_neighbors(to_make(tmp_path / "killed" / "merged"), parts=parts)
        written.append("going on")
        merge_neighbors(to_make(tmp_path / "killed" / "merged"), parts=parts)

    names = [path.name for path, _ in blocks_of(tmp_path, 50, 8)]
    assert written == [*names[:3], "going on", *names[3:]], "no block twice"
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "undisturbed")


def test_blocks_of_other_parts_are_never_picked_up(tmp_path, monkeypatch):
    stale, parts = (
        [write_part(tmp_path / f"{name}{i}", seed + i, first=i * 10**9) for i in range(3)]
        for name, seed in (("stale", 10), ("part", 0))
    )
    merge_neighbors(to_make(tmp_path / "undisturbed" / "merged"), parts=parts)

    def dies_after_it(path, arrays):
        write_block(path, arrays)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(knnlm.retrieval.neighbors, "write_block", dies_after_it)
        with pytest.raises(KeyboardInterrupt):
            merge_neighbors(to_make(tmp_path / "killed" / "merged"), parts=stale)
    merge_neighbors(to_make(tmp_path / "killed" / "merged"), parts=parts)

    assert files_of(tmp_path / "killed") == files_of(tmp_path / "undisturbed")
