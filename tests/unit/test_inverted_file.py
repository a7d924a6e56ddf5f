"""Approximate engines: faiss finds, but order, distances and missing neighbors are defined."""

import numpy as np
import pytest
from retrieval_artifacts import (
    datastore_of,
    files_of,
    make_index,
    nearest_by_definition,
    write_datastore,
)

import knnlm.retrieval.engines.inverted_file
from knnlm.retrieval.datastore import open_datastore, sample_keys
from knnlm.retrieval.engines.exact import full_distances, search_exact
from knnlm.retrieval.engines.inverted_file import open_index, search_index
from knnlm.retrieval.engines.settings import ENGINES, check_index
from knnlm.retrieval.parts import Part
from knnlm.runtime.artifacts import ArtifactError, read_manifest

IVF_FLAT = {
    "engine": "ivf_flat",
    "n_centroids": 12,
    "n_probes": 12,
    "train_keys": 400,
    "rescore": False,
}
IVFPQ = {**IVF_FLAT, "engine": "ivfpq", "code_bytes": 4}
N_KEYS, DIM = 900, 8


def random_keys(seed=0, n=N_KEYS):
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float16)


@pytest.fixture(scope="module")
def queries():
    return random_keys(seed=1, n=30).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_datastore(write_datastore(tmp_path_factory.mktemp("store"), random_keys()))


@pytest.fixture(scope="module")
def built(store, tmp_path_factory):
    """Return the folder of an index with the given settings, built once."""
    folder = tmp_path_factory.mktemp("indexes")

    def build(settings, *, name=None, seed=0):
        output = folder / (name or settings["engine"])
        if not output.exists():
            make_index(output, datastore=store.folder, index=settings, seed=seed)
        return output

    return build


def test_an_index_is_trained_on_keys_from_everywhere():
    keys = np.arange(900, dtype=np.float16)[:, None]

    first, second = (sample_keys(datastore_of(keys), 90, seed=seed)[:, 0] for seed in (0, 1))

    assert (np.diff(first) > 0).all()
    assert first[0] < 100 < 800 < first[-1]
    assert not np.array_equal(first, second)


def search(folder, store, queries, *, k=10, **changes):
    index = open_index(folder, datastore=store)
    settings = read_manifest(folder, kind="index")["settings"]
    return search_index(queries, index, store, k=k, **{"n_probes": settings["n_probes"], **changes})


def test_reading_every_cluster_of_full_keys_is_exact_search(built, store, queries):
    ids, distances = search(built(IVF_FLAT), store, queries)

    expected_ids, expected = nearest_by_definition(queries, random_keys(), 10)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)


def test_the_number_of_probes_given_with_a_search_is_what_it_reads(built, store, queries):
    def missing(n_probes):
        return (search(built(IVF_FLAT), store, queries, k=N_KEYS, n_probes=n_probes)[0] < 0).mean()

    assert missing(12) == 0
    assert 0 < missing(6) < missing(1) < 1


def test_missing_neighbors_stay_missing_when_distances_are_computed_again(built, store, queries):
    ids, distances = search(built(IVF_FLAT), store, queries, k=N_KEYS, n_probes=1)

    assert (ids == -1).any()
    again = full_distances(queries, store, ids)
    for some in (distances, again):
        np.testing.assert_array_equal(some == np.inf, ids == -1)
    np.testing.assert_array_equal(store.values(ids) == -1, ids == -1)
    assert (np.diff((ids == -1).astype(int), axis=1) >= 0).all(), "missing ones come last"


@pytest.mark.parametrize("settings", [IVF_FLAT, IVFPQ], ids=["ivf_flat", "ivfpq"])
def test_identical_keys_come_in_the_order_of_their_ids_also_at_the_last_place(
    settings, tmp_path, queries
):
    keys = random_keys()
    identical = np.sort(np.random.default_rng(3).permutation(N_KEYS)[:300])
    keys[identical] = keys[identical[0]]
    store = open_datastore(write_datastore(tmp_path / "store", keys))
    make_index(tmp_path / "index", datastore=store.folder, index=settings)

    ids, _ = search(tmp_path / "index", store, keys[identical[:1]].astype(np.float32), k=20)

    np.testing.assert_array_equal(ids[0], identical[:20])


def test_equal_distances_in_several_clusters_come_in_the_order_of_their_ids(tmp_path):
    keys = np.random.default_rng(4).integers(0, 3, (N_KEYS, 3)).astype(np.float16)
    store = open_datastore(write_datastore(tmp_path / "store", keys))
    make_index(tmp_path / "index", datastore=store.folder, index=IVF_FLAT)
    queries = keys[:40].astype(np.float32)

    ids, _ = search(tmp_path / "index", store, queries, k=60)

    np.testing.assert_array_equal(ids, nearest_by_definition(queries, keys, 60)[0])


def test_codes_find_most_of_what_exact_search_finds(built, store, queries):
    ids, _ = search(built({**IVFPQ, "code_bytes": 8}, name="fine"), store, queries, k=50)

    exact_ids, _ = search_exact(queries, store, k=50, slice_rows=500)
    shared = np.mean([np.isin(a, b).mean() for a, b in zip(ids, exact_ids, strict=True)])
    assert shared > 0.9


@pytest.mark.parametrize("settings", [IVF_FLAT, IVFPQ], ids=["ivf_flat", "ivfpq"])
def test_an_index_has_the_same_bytes_each_time_also_after_kills(
    settings, built, store, tmp_path, monkeypatch
):
    expected = files_of(built(settings))
    output = tmp_path / "index"

    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # when the keys are clustered, before the codes are
        patch.setattr(knnlm.retrieval.engines.inverted_file, "_trained", dies)
        with pytest.raises(KeyboardInterrupt):
            make_index(output, datastore=store.folder, index=settings)
    with monkeypatch.context() as patch:  # when three shards are
        patch.setattr(knnlm.retrieval.engines.inverted_file, "_centroids", None)  # no clustering
        patch.setattr(knnlm.retrieval.engines.inverted_file, "stop_if_asked", third(dies))
        with pytest.raises(KeyboardInterrupt):
            make_index(output, datastore=store.folder, index=settings)
    made = {p: p.stat().st_ino for p in tmp_path.rglob("shard-*.npy")}
    make_index(output, datastore=store.folder, index=settings)

    assert len(made) == 3
    inodes = {path.stat().st_ino for path in output.iterdir()}
    assert set(made.values()) <= inodes, "finished shards are kept, and linked"
    assert files_of(output) == expected
    shards = [f"shard-{number:05d}.npy" for number in range(4)]
    assert set(expected) == {"trained.faiss", "manifest.json", *shards}


def third(function):
    """Return a function that does nothing until its third call."""
    calls = []

    def counted():
        calls.append(None)
        if len(calls) == 3:
            function()

    return counted


def test_the_seed_of_an_index_changes_its_clusters(built):
    other = files_of(built(IVF_FLAT, name="other", seed=1))

    assert files_of(built(IVF_FLAT))["trained.faiss"] != other["trained.faiss"]


@pytest.mark.parametrize("settings", [{"engine": "exact"}, {"engine": "fused", "block_keys": 8}])
def test_an_exact_engine_has_an_index_that_is_only_a_manifest(settings, built):
    folder = built(settings)

    assert set(files_of(folder)) == {"manifest.json"}
    assert read_manifest(folder, kind="index")["settings"] == {**settings, "seed": 0}


def test_an_index_of_another_datastore_is_refused(built, tmp_path):
    other = open_datastore(write_datastore(tmp_path / "other", random_keys(seed=9)))

    with pytest.raises(ArtifactError, match="made from another datastore"):
        open_index(built(IVF_FLAT), datastore=other)


def test_a_part_opens_the_codes_of_its_own_rows_alone(built, store, queries):
    part = store.part(Part(1, 2))

    ids, _ = search(built(IVF_FLAT), part, queries, k=20)

    assert open_index(built(IVF_FLAT), datastore=part).ntotal == len(part.rows) < N_KEYS
    assert (ids >= part.rows.start).all()
    expected, _ = nearest_by_definition(queries, random_keys()[part.rows.start :], 20)
    np.testing.assert_array_equal(ids, expected + part.rows.start)


def test_the_manifest_says_what_an_entry_costs(built):
    contents = read_manifest(built(IVFPQ), kind="index")["contents"]

    assert (contents["n_entries"], contents["n_centroids"]) == (N_KEYS, 12)
    assert contents["bytes_per_entry"] == 1 + 4, "the number of its cluster, and its code"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "hnsw"}, "engine must be one of exact, fused, ivf_flat, ivfpq, got hnsw"),
        ({"n_centroids": 401}, "n_centroids must be from 1 to the 400 keys .* got 401"),
        ({"n_centroids": 950, "train_keys": 2000}, "to the 900 keys that ivfpq is trained on"),
        ({"n_probes": 13}, "n_probes must be from 1 to the 12 centroids, got 13"),
        ({"n_probes": 0}, "n_probes must be from 1 to the 12 centroids, got 0"),
        ({"code_bytes": 3}, "code_bytes must divide the width of the keys, 8, got 3"),
        ({"train_keys": 255}, "ivfpq needs at least 256 keys to train on, got 255"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_the_reason(change, message):
    with pytest.raises(ValueError, match=message):
        check_index({**IVFPQ, **change}, n_entries=N_KEYS, dim=DIM)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_metric_that_there_is_not_is_refused_by_every_engine(engine, store, tmp_path):
    index = {**IVFPQ, "engine": engine, "metric": "cosine"}

    with pytest.raises(ValueError, match=f"the engine {engine} supports .* l2, ip, got cosine"):
        make_index(tmp_path / "index", datastore=store.folder, index=index)


def test_a_search_for_more_than_there_is_is_refused(built, store, queries):
    with pytest.raises(ValueError, match="k must be from 1 to 900"):
        search(built(IVF_FLAT), store, queries, k=901)


def test_a_datastore_in_memory_is_searched_like_one_on_disk(built, store, queries):
    index = open_index(built(IVF_FLAT), datastore=store)
    settings = {"k": 10, "n_probes": 3}

    in_memory = search_index(queries, index, datastore_of(random_keys()), **settings)

    on_disk = search_index(queries, index, store, **settings)
    np.testing.assert_array_equal(in_memory[0], on_disk[0])
    np.testing.assert_array_equal(in_memory[1], on_disk[1])
