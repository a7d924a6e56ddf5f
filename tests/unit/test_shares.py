"""Neighbors in nested shares, found together, are those that a search of each share finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_artifacts import (
    TILES,
    datastore_of,
    files_of,
    find_neighbors,
    make_datastore,
    make_index,
    to_make,
    write_inputs,
    write_scored,
)

import knnlm.retrieval.engines.nested
import knnlm.retrieval.sampling
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.engines.exact import search_exact
from knnlm.retrieval.engines.inverted_file import open_index, search_index
from knnlm.retrieval.engines.nearest import NO_LEVEL
from knnlm.retrieval.engines.nested import search_nested
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.sampling import Entries
from knnlm.retrieval.share_search import search_shares
from knnlm.retrieval.shares import load_share_neighbors, share_levels
from knnlm.runtime.artifacts import ArtifactError, read_manifest

DEVICES = ["cpu", "cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)]
SITE = "ffn_input_after_layer_norm"
LM = {"site": SITE, "stride": 4, "dtype": "float16", "shard_mib": 16}
SHARES = [0.05, 0.2, 0.6, 1.0]  # the smallest has 15 of 302 entries
SEARCH = {"k": 7, "block_queries": 17}
LISTS = {"n_centroids": 10, "n_probes": 4, "train_keys": 302}
INDEXES = {
    "exact": {"engine": "exact", "metric": "l2"},
    "exact_ip": {"engine": "exact", "metric": "ip"},
    "ivf_flat": {"engine": "ivf_flat", "rescore": False, **LISTS, "n_probes": 1},
    "ivfpq": {"engine": "ivfpq", "rescore": True, "code_bytes": 4, **LISTS},
}
SEED = 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folders of a datastore, one of each share, queries, and indexes of the whole."""
    folder = tmp_path_factory.mktemp("inputs")
    lm = write_inputs(folder)
    for share in SHARES:
        make_datastore(folder / f"share{share}", share=share, seed=SEED, **LM, **lm)
    queries = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
    write_scored(folder / "queries", queries=queries, **lm)
    for name, index in INDEXES.items():
        make_index(folder / name, datastore=folder / "share1.0", index=index)
    return folder


def find(inputs, output, *, index="exact", shares=SHARES, n_queries=None, **changes):
    search_shares(
        to_make(output, seed=SEED),
        datastore=inputs / "share1.0",
        index=inputs / index,
        queries=inputs / "queries",
        search=TILES | SEARCH | changes,
        shares=shares,
        n_queries=n_queries,
    )
    return load_share_neighbors(output)


def positions_of(neighbors):
    return neighbors.entries.positions(neighbors.ids)


@pytest.mark.parametrize("index", ["exact", "exact_ip"])
@pytest.mark.parametrize("n_queries", [None, 40])
def test_each_share_has_the_neighbors_of_a_datastore_of_this_share(
    inputs, tmp_path, index, n_queries
):
    found = find(inputs, tmp_path / "found", index=index, n_queries=n_queries)

    for share in SHARES:
        store = inputs / f"share{share}"
        own = make_index(tmp_path / f"index{share}", datastore=store, index=INDEXES[index])
        expected = load_neighbors(
            find_neighbors(
                tmp_path / f"real{share}",
                datastore=store,
                index=own,
                queries=inputs / "queries",
                n_queries=n_queries,
                recall_sample=5,
                **SEARCH,
            )
        )
        ours = found.of(share)
        assert found.n_entries(share) == open_datastore(store).n_entries
        np.testing.assert_array_equal(positions_of(ours), positions_of(expected))
        np.testing.assert_array_equal(ours.distances, expected.distances)
        np.testing.assert_array_equal(ours.values, expected.values)
        np.testing.assert_array_equal(ours.places, expected.places)


@pytest.mark.parametrize("name", ["ivf_flat", "ivfpq"])
def test_an_inverted_file_of_a_share_is_that_of_the_whole_with_the_keys_of_the_share(
    inputs, tmp_path, name
):
    store, index = open_datastore(inputs / "share1.0"), INDEXES[name]
    hidden = np.array(load_queries(inputs / "queries").hidden(SITE))
    found = find(inputs, tmp_path / "found", index=name)

    for share in SHARES:
        held = Entries(302, share, SEED).holds(np.arange(302))
        own = open_index(inputs / name, datastore=store, chosen=held)
        probes = {"k": SEARCH["k"], "n_probes": index["n_probes"]}
        ids, rough = search_index(hidden, own, store, **probes)
        ours = found.of(share, rough=index["rescore"])
        by_id = np.argsort(ids, axis=1), np.argsort(ours.ids, axis=1)
        ids, ours_ids = (
            np.take_along_axis(*pair, 1) for pair in zip((ids, ours.ids), by_id, strict=True)
        )
        np.testing.assert_array_equal(ours_ids, ids)
        by_codes = ours.rough if index["rescore"] else ours.distances
        rough, by_codes = (
            np.take_along_axis(*pair, 1) for pair in zip((rough, by_codes), by_id, strict=True)
        )
        np.testing.assert_array_equal(by_codes, rough)
        assert (ours.distances[:, 1:] >= ours.distances[:, :-1]).all()
    assert (found.of(SHARES[0]).ids < 0).any(), "the lists of a small share were meant to run dry"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["l2", "ip"])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_ties_and_slices_change_nothing(device, metric, data):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng, n = np.random.default_rng(seed), data.draw(st.integers(30, 300))
    high = data.draw(st.sampled_from([2, 4, 30]))  # 2: nearly all keys are tied
    keys = rng.integers(-high, high, (n, 3)).astype(data.draw(st.sampled_from(["f2", "f4"])))
    queries = rng.integers(-high, high, (9, 3)).astype(np.float32)
    levels = rng.choice([0, 1, 2, NO_LEVEL], n).astype(np.uint8)
    levels[:10] = 0
    k, named = data.draw(st.integers(1, 10)), {"device": device, "metric": metric}

    ids, distances = search_nested(
        queries,
        datastore_of(keys),
        levels,
        k=k,
        slice_rows=data.draw(st.sampled_from([None, 17, 64])),
        **named,
    )

    for level in range(3):
        rows = np.flatnonzero(levels <= level)
        expected, far = search_exact(queries, datastore_of(keys[rows]), k=k, **named)
        for query in range(len(queries)):
            mine = [at for at, id_ in enumerate(ids[query]) if id_ >= 0 and levels[id_] <= level]
            np.testing.assert_array_equal(ids[query, mine[:k]], rows[expected[query]])
            np.testing.assert_array_equal(distances[query, mine[:k]], far[query])
    assert levels[ids[ids >= 0]].max() < 3


def test_levels_are_those_of_the_smallest_share_that_holds_an_entry(monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.sampling, "BLOCK", 64)
    whole = Entries(1000, 0.8, seed=1)
    positions = whole.positions(np.arange(len(whole)))

    levels = share_levels(whole, [0.1, 0.5])

    in_tenth, in_half = (
        np.isin(positions, one.positions(np.arange(len(one))))
        for one in (Entries(1000, 0.1, seed=1), Entries(1000, 0.5, seed=1))
    )
    np.testing.assert_array_equal(levels == 0, in_tenth)
    np.testing.assert_array_equal(levels == 1, in_half & ~in_tenth)
    np.testing.assert_array_equal(levels == NO_LEVEL, ~in_half)


@pytest.mark.parametrize("shares", [[], [0.5, 0.2], [0.2, 0.2], [0.5, 0.9]])
def test_shares_that_do_not_ascend_up_to_that_of_the_datastore_are_refused(shares):
    with pytest.raises(ValueError, match="expected shares of a datastore that ascend, up to"):
        share_levels(Entries(1000, 0.8, seed=1), shares)


def test_a_share_with_fewer_entries_than_k_is_refused(inputs, tmp_path):
    with pytest.raises(
        ValueError, match=r"k must be from 1 to 15, the number of entries of .*0.05"
    ):
        find(inputs, tmp_path / "found", k=16)


def test_a_share_that_was_not_searched_and_codes_that_were_not_kept_are_refused(inputs, tmp_path):
    found = find(inputs, tmp_path / "found")

    with pytest.raises(ArtifactError, match=r"expected one of the shares .* got 0.3"):
        found.of(0.3)
    with pytest.raises(ArtifactError, match="to have distances by codes"):
        found.of(0.2, rough=True)


def test_a_search_that_was_interrupted_goes_on_and_has_the_same_bytes(
    inputs, tmp_path, monkeypatch
):
    find(inputs, tmp_path / "whole")
    real, calls = search_nested, []

    def interrupted(*args, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setattr(knnlm.retrieval.share_search, "search_nested", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(inputs, tmp_path / "found")
    find(inputs, tmp_path / "found")

    n_blocks = len([*(tmp_path / "whole").glob("block-*.npz")])
    assert len(calls) == n_blocks + 1, "published blocks were searched again"
    assert files_of(tmp_path / "found") == files_of(tmp_path / "whole")
    assert read_manifest(tmp_path / "found", kind="share_neighbors")["contents"]["shares"] == SHARES
