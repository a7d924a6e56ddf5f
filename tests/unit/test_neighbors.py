"""Neighbors are found once, whole or not at all, from artifacts that belong together."""

import numpy as np
import pytest
from lm_artifacts import write_tokens
from retrieval_artifacts import (
    files_of,
    find_neighbors,
    make_datastore,
    make_index,
    nearest_by_definition,
    write_inputs,
    write_model,
    write_scored,
)

import knnlm.retrieval.datastore_parts
import knnlm.retrieval.search
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.engines.inverted_file import open_index, search_index
from knnlm.retrieval.neighbors import load_neighbors, recall
from knnlm.runtime.artifacts import ArtifactError, read_manifest
from knnlm.text.tokens import load_tokens

SITE = "ffn_input_after_layer_norm"
QUERIES = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
SEARCH = {"k": 5, "block_queries": 9, "recall_sample": 20}
IVF_FLAT = {
    "engine": "ivf_flat",
    "n_centroids": 20,
    "n_probes": 2,
    "train_keys": 302,
    "rescore": True,
}
IVFPQ = IVF_FLAT | {"engine": "ivfpq", "code_bytes": 4}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folders of a datastore in several shards, queries, and two indexes."""
    folder = tmp_path_factory.mktemp("inputs")
    lm = write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, **__: 64)
        make_datastore(
            folder / "datastore",
            site=SITE,
            stride=4,
            dtype="float16",
            shard_mib=16,
            **lm,
        )
    write_scored(folder / "queries", queries=QUERIES, **lm)
    for index in ({"engine": "exact"}, IVF_FLAT, IVFPQ):
        make_index(folder / index["engine"], datastore=folder / "datastore", index=index)
    return folder


def find(inputs, output, *, engine="exact", **changes):
    folders = {
        "datastore": inputs / "datastore",
        "index": inputs / engine,
        "queries": inputs / "queries",
    }
    return load_neighbors(find_neighbors(output, **{**folders, **SEARCH, **changes}))


def test_exact_neighbors_are_those_of_the_definition_with_their_values(inputs, tmp_path):
    store = open_datastore(inputs / "datastore")
    keys = np.concatenate([shard.datastore_keys for shard in store])
    values = np.concatenate([shard.datastore_values for shard in store])
    hidden = load_queries(inputs / "queries").hidden(SITE)

    neighbors = find(inputs, tmp_path / "neighbors")

    ids, distances = nearest_by_definition(hidden, keys, 5)
    np.testing.assert_array_equal(neighbors.ids, ids)
    np.testing.assert_allclose(neighbors.distances, distances, rtol=1e-5)
    np.testing.assert_array_equal(neighbors.values, values[ids])
    types = (neighbors.ids.dtype, neighbors.distances.dtype, neighbors.values.dtype)
    assert types == (np.int64, np.float32, np.int32)


@pytest.mark.parametrize("engine", ["exact", "ivf_flat"])
def test_a_killed_search_ends_with_the_bytes_of_an_undisturbed_one(
    engine, inputs, tmp_path, monkeypatch
):
    find(inputs, tmp_path / "undisturbed" / "neighbors", engine=engine)
    search_block = knnlm.retrieval.search._Engine.__call__
    n_searched = []

    def dies_at_the_third(self, hidden):
        if len(n_searched) == 2:
            raise KeyboardInterrupt
        n_searched.append(len(hidden))
        return search_block(self, hidden)

    monkeypatch.setattr(knnlm.retrieval.search._Engine, "__call__", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        find(inputs, tmp_path / "killed" / "neighbors", engine=engine)
    assert not (tmp_path / "killed" / "neighbors").exists()
    n_searched.append("going on")
    find(inputs, tmp_path / "killed" / "neighbors", engine=engine)

    n_queries = load_queries(inputs / "queries").n_queries
    assert sum(n for n in n_searched if n != "going on") == n_queries, "no block twice"
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "undisturbed")


def test_blocks_change_no_neighbor(inputs, tmp_path):
    one = find(inputs, tmp_path / "one", block_queries=1000)
    many = find(inputs, tmp_path / "many", block_queries=7)

    np.testing.assert_array_equal(one.ids, many.ids)
    np.testing.assert_array_equal(one.distances, many.distances)


def test_missing_neighbors_have_no_value(inputs, tmp_path):
    neighbors = find(inputs, tmp_path / "neighbors", engine="ivf_flat", k=200)

    missing = neighbors.ids == -1
    assert missing.any()
    np.testing.assert_array_equal(neighbors.values == -1, missing)
    np.testing.assert_array_equal(neighbors.distances == np.inf, missing)


def test_what_codes_choose_is_kept_with_their_distances_beside_the_full_ones(inputs, tmp_path):
    store = open_datastore(inputs / "datastore")
    keys = np.concatenate([shard.datastore_keys for shard in store]).astype(np.float64)
    hidden = load_queries(inputs / "queries").hidden(SITE)

    plain = find(inputs, tmp_path / "neighbors", engine="ivfpq", k=9)
    found = load_neighbors(tmp_path / "neighbors", rough=True)

    full = ((hidden[:, None].astype(np.float64) - keys[found.ids]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found.distances, full, rtol=1e-5)
    assert (np.diff(found.distances) >= 0).all()
    index = open_index(inputs / "ivfpq", datastore=store)
    ids, rough = search_index(np.array(hidden), index, store, k=9, n_probes=2)
    order = np.argsort(found.ids, axis=1)
    np.testing.assert_array_equal(np.take_along_axis(found.ids, order, 1), np.sort(ids))
    expected = np.take_along_axis(rough, np.argsort(ids, axis=1), 1)
    np.testing.assert_array_equal(np.take_along_axis(found.rough, order, 1), expected)
    assert np.abs(found.rough - found.distances).max() > 1e-3
    assert plain.rough is None
    for name in ("ids", "distances", "values"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(found, name))


def test_distances_by_codes_that_were_not_kept_are_refused(inputs, tmp_path):
    find(inputs, tmp_path / "neighbors")

    with pytest.raises(ArtifactError, match=r"distances by codes .* engine exact .* rescore: true"):
        load_neighbors(tmp_path / "neighbors", rough=True)


def test_the_manifest_has_the_settings_that_faiss_used_and_the_recall(inputs, tmp_path):
    everything = {"recall_sample": 10_000}
    exact = find(inputs, tmp_path / "exact")
    approximate = find(inputs, tmp_path / "approximate", engine="ivf_flat", **everything)

    contents = read_manifest(tmp_path / "approximate", kind="neighbors")["contents"]

    shared = [len(set(a) & set(b)) / 5 for a, b in zip(exact.ids, approximate.ids, strict=True)]
    assert contents["recall"] == pytest.approx(np.mean(shared), abs=1e-12)
    assert 0 < contents["recall"] < 1
    assert contents["search"] == {
        "engine": "ivf_flat",
        "metric": "l2",
        "n_centroids": 20,
        "n_probes": 2,
        "rescore": True,
    }
    assert contents["n_queries"] == contents["recall_queries"] == len(exact.ids)
    exact_contents = read_manifest(tmp_path / "exact", kind="neighbors")["contents"]
    assert exact_contents["recall"] == 1.0
    assert exact_contents["search"] == {"engine": "exact", "metric": "l2"}


@pytest.mark.parametrize(("engine", "device"), [("exact", "cpu:0"), ("ivf_flat", "cpu")])
def test_only_exact_search_takes_a_device_that_is_there(
    engine, device, inputs, tmp_path, monkeypatch
):
    search_exact, devices = knnlm.retrieval.search.search_exact, []

    def recorded(*args, device, **settings):
        devices.append(device)
        return search_exact(*args, device=device, **settings)

    monkeypatch.setattr(knnlm.retrieval.search, "available_device", lambda: "cpu:0")
    monkeypatch.setattr(knnlm.retrieval.search, "search_exact", recorded)

    find(inputs, tmp_path / "neighbors", engine=engine)

    assert set(devices) == {device}


def test_recall_is_the_share_of_expected_ids_that_were_found():
    expected = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    found = np.array([[4, 3, 9, -1], [8, 7, 6, 5]])

    assert recall(found, expected) == (0.5 + 1.0) / 2


def test_queries_of_another_model_are_refused(inputs, tmp_path):
    other = write_model(tmp_path / "model", inputs / "tokenizer", seed=1)
    lm = {"model": other, "tokens": inputs / "tokens"}
    queries = write_scored(tmp_path / "queries", queries=QUERIES, **lm)

    with pytest.raises(ArtifactError, match=r"queries was made from another model.*rebuild"):
        find(inputs, tmp_path / "neighbors", queries=queries)


def test_queries_of_another_corpus_find_their_neighbors_in_this_one(inputs, tmp_path):
    tokens = write_tokens(tmp_path / "tokens", inputs / "tokenizer", seed=5)
    lm = {"model": inputs / "model", "tokens": tokens}
    queries = write_scored(tmp_path / "queries", queries=QUERIES, **lm)

    neighbors = find(inputs, tmp_path / "neighbors", queries=queries)

    hidden = load_queries(queries).hidden(SITE)
    store = open_datastore(inputs / "datastore")
    keys = np.concatenate([shard.datastore_keys for shard in store])
    np.testing.assert_array_equal(neighbors.ids, nearest_by_definition(hidden, keys, 5)[0])


@pytest.mark.parametrize("engine", ["exact", "ivf_flat"])
def test_evenly_spaced_queries_are_searched_and_told(engine, inputs, tmp_path):
    every = find(inputs, tmp_path / "every", engine=engine)
    n = len(every.ids)

    some = find(inputs, tmp_path / "some", engine=engine, n_queries=13)

    np.testing.assert_array_equal(every.places, np.arange(n))
    np.testing.assert_array_equal(some.places, np.arange(13) * n // 13)
    np.testing.assert_array_equal(some.ids, every.ids[some.places])
    np.testing.assert_array_equal(some.values, every.values[some.places])
    contents = read_manifest(tmp_path / "some", kind="neighbors")["contents"]
    assert (contents["n_queries"], contents["of_queries"]) == (13, n)


@pytest.fixture(scope="module")
def share(inputs):
    """A datastore of three tenths of the entries, in parts, and its indexes."""
    lm = {role: inputs / role for role in ("model", "tokens")}
    settings = {"site": SITE, "stride": 4, "dtype": "float16", "shard_mib": 16, "share": 0.3}
    datastore = make_datastore(inputs / "share", parts=2, **settings, **lm)
    for index in ({"engine": "exact"}, IVF_FLAT | {"n_probes": 20}):
        make_index(inputs / f"share_{index['engine']}", datastore=datastore, index=index)
    return datastore


@pytest.mark.parametrize("engine", ["exact", "ivf_flat"])
def test_neighbors_in_a_share_are_those_of_the_definition_among_its_entries(
    engine, inputs, share, tmp_path
):
    every = np.concatenate([s.datastore_keys for s in open_datastore(inputs / "datastore")])
    stream = load_tokens(inputs / "tokens", "train").tokens
    hidden = load_queries(inputs / "queries").hidden(SITE)

    found = find(inputs, tmp_path / "neighbors", engine=f"share_{engine}", datastore=share)

    held = found.entries.positions(np.arange(open_datastore(share).n_entries))
    expected, _ = nearest_by_definition(hidden, every[held], 5)
    positions = found.entries.positions(found.ids)
    np.testing.assert_array_equal(positions, held[expected])
    np.testing.assert_array_equal(found.values, stream[positions + 1])


def test_a_share_with_fewer_entries_than_neighbors_is_refused(inputs, share, tmp_path):
    with pytest.raises(ValueError, match=r"k must be from 1 to 91, .* share of 0\.3, got 100"):
        find(inputs, tmp_path / "neighbors", engine="share_exact", datastore=share, k=100)


def test_more_neighbors_than_entries_are_refused_before_the_search(inputs, tmp_path):
    with pytest.raises(ValueError, match=r"k must be from 1 to 302, .* got 303"):
        find(inputs, tmp_path / "neighbors", k=303)

    assert not any(tmp_path.rglob("*.npz"))


def test_an_altered_datastore_is_refused_before_the_search(inputs, tmp_path, monkeypatch):
    file = inputs / "datastore" / "shard-00001" / "datastore_keys.npy"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ArtifactError, match=r"shard-00001/datastore_keys\.npy"):
            find(inputs, tmp_path / "neighbors")
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:90] + b"\0" * 40 + b[130:]])
def test_a_damaged_block_is_named(damage, inputs, tmp_path):
    find(inputs, tmp_path / "neighbors")
    file = tmp_path / "neighbors" / "block-00001.npz"
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(ArtifactError, match=r"block-00001\.npz.*rebuild"):
        load_neighbors(tmp_path / "neighbors")
