"""A datastore of five billion keys: ids, offsets and borders beyond 31 and 32 bits.

The files are sparse: zeros that no disk holds, but for the rows that a test has written.
"""

import resource
from pathlib import Path

import numpy as np
import pytest
from retrieval_artifacts import nearest_by_definition, write_datastore

import knnlm.retrieval.datastore
from knnlm.retrieval.datastore import KEYS, VALUES, open_datastore, shard_name
from knnlm.retrieval.engines.exact import full_distances, search_exact
from knnlm.retrieval.neighbors import merge_lists
from knnlm.retrieval.parts import Part
from knnlm.retrieval.sampling import Entries
from knnlm.runtime.artifacts import ArtifactError, write_manifest

N_ENTRIES = 5_000_000_001
DIM = 4  # 8 bytes a key: a shard of 2^30 keys has 8 GiB
ROWS_PER_SHARD = 1 << 30
N_PARTS = 5
# Rows that hold something: around the borders of shards, of 31 and 32 bits, and at the end.
WRITTEN = np.array(
    [
        *(0, 1, (1 << 29) - 1, 1 << 29),  # byte 2^32 of the first shard
        *((1 << 28) - 1, 1 << 28),  # byte 2^31
        *((1 << 30) - 1, 1 << 30),
        *((1 << 31) - 1, 1 << 31, (1 << 31) + 1),
        *(3_000_000_000,),
        *((1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 32) + 1),
        *range(N_ENTRIES - 40, N_ENTRIES),
    ]
)
EMPTY = np.array([5, 1_000_000_000, (1 << 31) + 9, 4_400_000_000])


def sparse_array(path, shape, dtype):
    """Make a .npy file of zeros that takes no disk; return it, memory-mapped and writable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def keys_of(ids):
    """Return a key that no other of these ids has."""
    ids = np.asarray(ids)[:, None]
    return (1 + (ids * [1, 3, 7, 11] + (ids >> 20)) % 97).astype(np.float16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "datastore"
    checksums = {}
    for number, first in enumerate(range(0, N_ENTRIES, ROWS_PER_SHARD)):
        n_rows = min(ROWS_PER_SHARD, N_ENTRIES - first)
        shard = folder / shard_name(number)
        keys = sparse_array(shard / KEYS, (n_rows, DIM), np.float16)
        values = sparse_array(shard / VALUES, (n_rows,), np.uint32)
        here = WRITTEN[(first <= WRITTEN) & (first + n_rows > WRITTEN)]
        keys[here - first], values[here - first] = keys_of(here), here % 50_021 + 1
        checksums |= {f"{shard.name}/{name}": "0" * 64 for name in (KEYS, VALUES)}
    write_manifest(
        folder,
        kind="datastore",
        settings={},
        made_from={},
        contents={
            "n_entries": N_ENTRIES,
            "entries": Entries(N_ENTRIES).described(),
            "dim": DIM,
            "dtype": "float16",
            "values_dtype": "uint32",
            "rows_per_shard": ROWS_PER_SHARD,
        },
        checksums=checksums,
    )
    return folder


def test_it_takes_no_disk_and_opens_at_its_full_size(folder):
    files = list(folder.rglob("*.npy"))

    store = open_datastore(folder)

    assert sum(path.stat().st_size for path in files) > 12 * N_ENTRIES - 1
    assert sum(512 * path.stat().st_blocks for path in files) < 4 << 20
    assert (store.n_entries, len(store.shards)) == (N_ENTRIES, 5)
    assert [shard.first_id for shard in store] == [i << 30 for i in range(5)]


def test_values_beyond_32_bits_are_those_of_their_rows(folder):
    store = open_datastore(folder)
    ids = np.concatenate([WRITTEN, EMPTY, [-1]])
    ids = np.random.default_rng(0).permutation(ids).reshape(-1, 1)
    ids = np.concatenate([ids, np.roll(ids, 7)], axis=1)

    values = store.values(ids)

    expected = np.where(np.isin(ids, WRITTEN), ids % 50_021 + 1, 0)
    np.testing.assert_array_equal(values, np.where(ids < 0, -1, expected))


def test_the_rows_of_parts_meet_at_the_borders_of_shards(folder):
    store = open_datastore(folder)

    owned = [store.part(Part(number, 3)).rows for number in range(3)]

    assert [(rows.start >> 30, rows.stop >> 30) for rows in owned[:2]] == [(0, 1), (1, 3)]
    assert (owned[2].start, owned[2].stop) == (3 << 30, N_ENTRIES)


@pytest.mark.parametrize("border", [1 << 30, 1 << 31, 3 << 30, 1 << 32, 1 << 29, 1 << 28])
@pytest.mark.parametrize("n_rows", [5, 16, 100])
def test_slices_around_a_border_hold_the_keys_of_their_rows(border, n_rows, folder):
    rows = range(border - 16, border + 16)
    store = open_datastore(folder).between(rows)
    expected = np.where(np.isin(rows, WRITTEN)[:, None], keys_of(rows), 0)

    widened = [(start, keys.copy()) for start, keys in store.slices(n_rows)]
    stored = list(store.stored_slices(n_rows))

    assert [start for start, _ in widened] == list(rows[::n_rows])
    np.testing.assert_array_equal(np.concatenate([keys for _, keys in widened]), expected)
    np.testing.assert_array_equal(np.concatenate([keys for _, keys in stored]), expected)
    ends = [start + len(keys) for start, keys in stored]
    assert [start for start, _ in stored] == [rows.start, *ends[:-1]]
    assert (border in {start for start, _ in stored}) or border % ROWS_PER_SHARD


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_exact_search_at_the_far_end_gives_ids_of_the_whole_datastore(device, folder):
    store = open_datastore(folder)
    tail = range(N_ENTRIES - 40, N_ENTRIES)
    far = range(N_ENTRIES - 3000, N_ENTRIES)
    queries = keys_of([tail[0], tail[-1], tail[20]]).astype(np.float32) + np.float32(0.25)

    ids, distances = search_exact(queries, store.between(far), k=7, slice_rows=256, device=device)

    local, expected = nearest_by_definition(queries, keys_of(tail), 7)
    np.testing.assert_array_equal(ids, local + tail.start)
    np.testing.assert_array_equal(distances, expected)
    again = full_distances(queries, store.between(far), ids, slice_rows=256)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(store.values(ids), ids % 50_021 + 1)


def test_lists_of_parts_on_both_sides_of_32_bits_are_merged(folder):
    store = open_datastore(folder)
    queries = np.zeros((2, DIM), dtype=np.float32)
    queries[1] = keys_of([1 << 32])
    around = [range(border - 8, border + 8) for border in (1 << 29, 1 << 31, 1 << 32)]

    found = [search_exact(queries, store.between(rows), k=9) for rows in around]
    ids, distances = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    merged = merge_lists({"ids": ids, "distances": distances, "values": store.values(ids)}, k=9)

    every = np.concatenate([np.array(rows) for rows in around])
    keys = np.where(np.isin(every, WRITTEN)[:, None], keys_of(every), 0)
    places, expected = nearest_by_definition(queries, keys, 9)
    np.testing.assert_array_equal(merged["ids"], every[places])
    np.testing.assert_array_equal(merged["distances"], expected)
    assert merged["ids"][0, 0] == around[0].start, "zeros are tied: the smallest id is first"
    assert merged["ids"][1, 0] == 1 << 32
    assert merged["values"][1, 0] == (1 << 32) % 50_021 + 1


def test_a_shard_of_another_length_is_named(folder, tmp_path):
    store = write_datastore(tmp_path / "store", np.zeros((10, 2), np.float16), rows_per_shard=4)
    path = store / shard_name(1) / VALUES
    np.save(path, np.zeros(3, np.uint16))
    manifest = {"n_entries": 10, "dim": 2, "dtype": "float16", "values_dtype": "uint16"}
    contents = {**manifest, "rows_per_shard": 4}
    write_manifest(store, kind="datastore", settings={}, made_from={}, contents=contents)

    with pytest.raises(ArtifactError, match=r"shard-00001/datastore_values.npy to have 4 rows"):
        open_datastore(store)


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.datastore, "OPEN_SHARDS", 8)
    keys = np.arange(200, dtype=np.float16).reshape(-1, 2)
    folder = write_datastore(tmp_path / "store", keys, rows_per_shard=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(1000) if number not in in_use]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[2 * 8 + 20], hard))
        store = open_datastore(folder)
        ids, _ = search_exact(keys.astype(np.float32), store, k=1)
        values = store.values(ids)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert len(store.shards) == 100
    np.testing.assert_array_equal(ids[:, 0], np.arange(100))
    np.testing.assert_array_equal(values, ids)
