"""Real neighbors in nested shares are those of the definition; an index of a share stays in it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_artifacts import (
    datastore_of,
    files_of,
    make_datastore,
    nearest_by_definition,
    to_make,
    write_inputs,
    write_model,
    write_scored,
)

import knnlm.experiments.approximate_search.mask_search as mask_search
from knnlm.experiments.approximate_search.half_precision import half_distances, search_half
from knnlm.experiments.approximate_search.mask_search import (
    index_settings,
    real_neighbors,
    search_masks,
)
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.sampling import Entries, evenly_spaced
from knnlm.runtime.artifacts import ArtifactError, read_manifest

SITE = "ffn_input_after_layer_norm"
SEARCH = {"k": 6, "keys_mib": 1, "scores_mib": 1}
INDEX = {
    "engine": "ivf_flat",
    "metric": "l2",
    "n_centroids": 12,
    "n_probes": 2,
    "train_keys": 200,
    "rescore": True,
}
SHARES = {"shares": [0.2, 0.5], "queries": 40, "scaled_lists": True}


def rows_of(share, *, n_entries, seed=0):
    """Return the entries of a whole datastore that its share holds."""
    entries = Entries(n_entries, share, seed)
    return entries.positions(np.arange(len(entries)))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    dim=st.sampled_from([2, 3, 17]),
    shares=st.lists(st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.9]), min_size=1, unique=True),
)
def test_neighbors_in_nested_shares_are_those_of_the_definition_ties_and_all(seed, dim, shares):
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 4, (400, dim)).astype(np.float16)  # exact distances, many of them tied
    queries = rng.integers(0, 4, (5, dim)).astype(np.float32)
    store = datastore_of(keys, rows_per_shard=64)
    store = replace(store, entries=Entries(400, 1.0, 3))

    found = real_neighbors(queries, store, sorted(shares), search=SEARCH | {"k": 30})

    for share, lists in zip(sorted(shares), found, strict=True):
        rows = rows_of(share, n_entries=400, seed=3)
        places, distances = nearest_by_definition(queries, keys[rows], 30)
        np.testing.assert_array_equal(lists["ids"], rows[places])
        np.testing.assert_array_equal(lists["distances"], distances)
        np.testing.assert_array_equal(lists["values"], rows[places])


def test_a_share_with_fewer_entries_than_neighbors_is_refused():
    store = datastore_of(np.zeros((100, 2), dtype=np.float16))

    with pytest.raises(ValueError, match=r"at least k = 6 entries in the smallest share .* got 5;"):
        next(real_neighbors(np.zeros((1, 2)), store, [0.05], search=SEARCH))


def test_distances_in_half_precision_round_every_term():
    rng = np.random.default_rng(1)
    numbers = (rng.integers(-90, 90, (n, 7)) / 8 for n in (20, 300))  # exact sums in fp32
    queries, keys = (array.astype(np.float16) for array in numbers)

    q, k = queries.astype(np.float64), keys.astype(np.float64)
    of_queries, norms = (np.float16((x**2).sum(axis=1)) for x in (q, k))
    products = np.float16(norms.astype(np.float64) - 2 * q @ k.T)
    expected = np.maximum(products + of_queries[:, None], 0)  # NumPy adds halves and rounds once
    actual = half_distances(*map(torch.from_numpy, (queries, keys, norms))).numpy()

    np.testing.assert_array_equal(actual, expected)
    full = ((q[:, None] - k[None]) ** 2).sum(axis=2)
    assert 0.05 < np.abs(actual - full).max() < 2, (
        "half precision loses no digit: nothing is tested"
    )


def test_the_nearest_in_half_precision_are_those_of_its_distances_smaller_ids_first():
    rng = np.random.default_rng(2)
    keys = rng.standard_normal((500, 8)).astype(np.float16) + np.float16(8)
    queries = rng.standard_normal((150, 8)).astype(np.float32) + 8
    store = datastore_of(keys, rows_per_shard=128)

    ids, distances = search_half(queries, store, k=40)

    half = torch.from_numpy(queries).half()
    norms = torch.from_numpy(keys).float().square().sum(1).half()
    every = half_distances(half, torch.from_numpy(keys), norms).numpy()
    order = np.argsort(every, axis=1, kind="stable")[:, :40]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(every, order, 1))
    assert (np.diff(distances) == 0).any(), "no tie: nothing is tested"
    for slice_rows in (50, 128):
        again = search_half(queries, store, k=40, slice_rows=slice_rows)
        np.testing.assert_array_equal(again[0], ids)


def test_terms_beyond_the_largest_half_make_a_distance_infinite():
    keys = np.full((30, 4096), 8, dtype=np.float16)  # |k|^2 is 262,144

    _, distances = search_half(keys[:2].astype(np.float32), datastore_of(keys), k=3)

    assert np.isposinf(distances).all()


@pytest.mark.parametrize(
    ("share", "scaled", "lists"), [(0.05, True, 64), (0.5, True, 128), (0.05, False, 256)]
)
def test_a_smaller_share_has_fewer_lists_but_twice_as_many_as_are_read(share, scaled, lists):
    index = {"n_centroids": 256, "n_probes": 32}

    assert index_settings(index, share, scaled_lists=scaled)["n_centroids"] == lists


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    lm = write_inputs(folder)
    make_datastore(folder / "base", site=SITE, stride=4, dtype="float16", shard_mib=16, **lm)
    queries = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
    for split in ("validation", "test"):
        write_scored(folder / split, queries=queries, split=split, **lm)
    return folder


def search(inputs, output, *, index=INDEX, datastore=None, **changes):
    search_masks(
        to_make(output),
        datastore=datastore or inputs / "base",
        queries={split: inputs / split for split in ("validation", "test")},
        index=index,
        search=SEARCH,
        settings=SHARES | changes,
    )
    return output


def expected_in(inputs, share, split, k):
    (shard,) = open_datastore(inputs / "base")
    scored = load_queries(inputs / split)
    places = evenly_spaced(scored.n_queries, 40)
    rows = rows_of(share, n_entries=len(shard.datastore_keys))
    ids, distances = nearest_by_definition(
        scored.hidden(SITE)[places], shard.datastore_keys[rows], k
    )
    matches = shard.datastore_values[rows[ids]] == scored.targets[places][:, None]
    return distances, matches


def test_what_is_stored_is_distances_and_whether_the_value_is_the_target(inputs, tmp_path):
    every_list = INDEX | {"n_probes": 6, "n_centroids": 6}
    masks = search(inputs, tmp_path / "masks", index=every_list)

    for share in (0.2, 0.5):
        for split in ("validation", "test"):
            distances, matches = expected_in(inputs, share, split, 6)
            for mask in ("real", "approximate"):  # an index of which every list is read is exact
                stored = np.load(masks / f"{share}-{mask}-{split}.npz")
                np.testing.assert_allclose(stored["distances"], distances, rtol=1e-5)
                np.testing.assert_array_equal(stored["matches"], matches)
            np.testing.assert_allclose(stored["rough"], distances, rtol=1e-4)
    assert not [*masks.glob("*.faiss")]
    assert read_manifest(masks, kind="masks")["contents"]["queries"]["test"] == 40


def test_an_index_of_a_share_finds_some_of_its_neighbors_and_no_others(inputs, tmp_path):
    masks = search(inputs, tmp_path / "masks")

    stored = np.load(masks / "0.2-approximate-test.npz")
    distances, _ = expected_in(inputs, 0.2, "test", 60)
    found = np.isfinite(stored["distances"])
    for row, every in zip(stored["distances"], distances, strict=True):
        near = np.isclose(row[np.isfinite(row), None], every[None], rtol=1e-5).any(axis=1)
        assert near.all()
    assert 0.2 < (stored["distances"] <= distances[:, [5]] * (1 + 1e-6))[found].mean() < 1


def test_a_killed_search_goes_on_and_ends_in_the_same_bytes(inputs, tmp_path, monkeypatch):
    undisturbed = search(inputs, tmp_path / "undisturbed" / "masks")
    searched, search_index = [], mask_search.search_index

    def dies_at_the_third(*args, **settings):
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append(1)
        return search_index(*args, **settings)

    output = tmp_path / "killed" / "masks"
    with monkeypatch.context() as patch:
        patch.setattr(mask_search, "search_index", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            search(inputs, output)
    assert not output.exists()
    assert [*tmp_path.rglob("*.faiss")], "the index of the share at hand was not kept"
    with monkeypatch.context() as patch:
        patch.setattr(mask_search, "real_neighbors", lambda *_, **__: pytest.fail("again"))
        search(inputs, output)

    assert files_of(output) == files_of(undisturbed)


def test_queries_of_another_model_are_refused(inputs, tmp_path):
    model = write_model(tmp_path / "model", inputs / "tokenizer", seed=1)
    settings_of = {"site": SITE, "stride": 4, "dtype": "float16", "shard_mib": 16}
    make_datastore(tmp_path / "base", model=model, tokens=inputs / "tokens", **settings_of)

    with pytest.raises(ArtifactError, match="made from another model"):
        search(inputs, tmp_path / "masks", datastore=tmp_path / "base")


def test_an_index_that_does_not_fit_a_share_is_refused(inputs, tmp_path):
    with pytest.raises(ValueError, match=r"n_centroids must be from 1 to the 60 keys"):
        search(inputs, tmp_path / "masks", index=INDEX | {"n_centroids": 80}, scaled_lists=False)


def test_codes_of_a_share_are_kept_beside_full_distances(inputs, tmp_path):
    index = INDEX | {"engine": "ivfpq", "code_bytes": 2, "train_keys": 302}

    masks = search(inputs, tmp_path / "masks", index=index, shares=[0.9])

    stored = np.load(masks / "0.9-approximate-test.npz")
    assert (np.diff(stored["distances"]) >= 0).all()
    assert np.abs(stored["rough"] - stored["distances"]).max() > 1e-2
