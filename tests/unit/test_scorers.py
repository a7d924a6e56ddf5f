"""A rough distance never hides a true neighbor, on the CPU, in halves and on a GPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_artifacts import assert_neighbors_agree, datastore_of, nearest_by_definition

import knnlm.retrieval.engines.exact
from knnlm.retrieval.engines.exact import _limit, search_exact
from knnlm.retrieval.engines.scorers import FaissScorer, TorchScorer

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])
TORCH = ["cpu:0", CUDA]  # "cpu:0" is the torch path, on the CPU
EVERY_DEVICE = ["cpu", *TORCH]
NO_TILE = 1 << 30


def no_limit(queries):
    return np.full(len(queries), np.inf)


def adversarial(rng, n, dim, dtype, *, kind):
    """Return keys and queries for which |q|^2 - 2qk + |k|^2 loses digits."""
    keys = rng.standard_normal((n, dim))
    if kind == "large norms":  # distances are a small rest of large terms
        center = rng.standard_normal(dim)
        center *= (200 if dtype == "float16" else 3e4) / np.linalg.norm(center)
        keys = center + 0.3 * keys
    elif kind == "tiny differences":
        keys = keys[:1] + 2e-3 * keys
    elif kind == "duplicates":
        keys = keys[rng.integers(0, max(1, n // 8), n)]
    elif kind == "one huge":
        keys[rng.integers(n)] *= 3e3
    elif kind == "scales":
        keys *= 10.0 ** rng.uniform(-4, 3, (n, 1))
    keys = keys.astype(dtype)
    near = keys[rng.integers(0, n, 6)].astype(np.float32)
    near[:2] *= [[0], [0.3]]
    return keys, near * (1 + 1e-3 * rng.standard_normal((6, dim)).astype(np.float32))


KINDS = ["plain", "large norms", "tiny differences", "duplicates", "one huge", "scales"]


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(2, 600),
    dim=st.sampled_from([1, 3, 8, 13, 64, 200]),
    dtype=st.sampled_from(["float16", "float32"]),
    kind=st.sampled_from(KINDS),
    tile_rows=st.sampled_from([7, 100, 1000]),
)
def test_no_true_neighbor_is_missed(seed, n, dim, dtype, kind, tile_rows):
    rng = np.random.default_rng(seed)
    keys, queries = adversarial(rng, n, dim, dtype, kind=kind)
    k = int(rng.integers(1, n + 1))
    expected_ids, expected = nearest_by_definition(queries, keys, k)

    for device in ("cpu", "cpu:0"):
        ids, distances = search_exact(
            queries,
            datastore_of(keys, rows_per_shard=128),
            k=k,
            slice_rows=int(rng.integers(1, 700)),
            tile_bytes=4 * len(queries) * tile_rows,
            device=device,
        )
        np.testing.assert_allclose(distances, expected, rtol=1e-5)
        assert_neighbors_agree(ids, expected_ids, queries, keys)


@pytest.mark.parametrize("device", EVERY_DEVICE)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_rough_distances_are_within_the_declared_error(kind, dtype, device):
    rng = np.random.default_rng(0)
    keys, queries = adversarial(rng, 500, 200, dtype, kind=kind)
    scorer = scorer_on(device, keys)

    rough, columns = scorer.candidates(queries, len(keys), no_limit(queries))

    _, exact = nearest_by_definition(queries, keys, len(keys))
    order = np.argsort(columns, axis=1)
    by_column = np.take_along_axis(rough, order, axis=1).astype(np.float64)
    differences = queries[:, None].astype(np.float64) - keys[None].astype(np.float64)
    true = (differences**2).sum(axis=2)
    for column in range(len(keys)):
        # Were this key the k-th, its rough distance would have to be below the limit.
        limit = _limit(queries, true[:, [column]], scorer)
        assert (by_column[:, column] <= limit).all()
    assert (np.diff(rough, axis=1) >= 0).all()
    assert exact.shape == rough.shape


def scorer_on(device, keys, tile_bytes=NO_TILE):
    if device == "cpu":
        return FaissScorer(keys.astype(np.float32))
    return TorchScorer(keys, device=device, tile_bytes=tile_bytes)


@pytest.mark.parametrize("device", TORCH)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tiles_change_no_bit_of_the_neighbors(dtype, device):
    rng = np.random.default_rng(1)
    keys = rng.standard_normal((3000, 24)).astype(dtype)
    keys[rng.permutation(3000)[:900]] = keys[0]
    queries = np.concatenate([keys[:1], rng.standard_normal((30, 24))]).astype(np.float32)
    store = datastore_of(keys, rows_per_shard=1024)

    results = [
        search_exact(queries, store, k=50, tile_bytes=4 * len(queries) * rows, device=device)
        for rows in (10**6, 1000, 64, 1)
    ]

    for ids, distances in results[1:]:
        np.testing.assert_array_equal(ids, results[0][0])
        np.testing.assert_array_equal(distances, results[0][1])
    np.testing.assert_array_equal(results[0][0], nearest_by_definition(queries, keys, 50)[0])


@pytest.mark.parametrize("device", TORCH)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_torch_and_faiss_find_the_same_neighbors(dtype, device):
    rng = np.random.default_rng(2)
    low, directions = rng.standard_normal((4000, 6)), rng.standard_normal((6, 65))
    keys = (low @ directions + 0.2 * rng.standard_normal((4000, 65))).astype(dtype)
    queries = (keys[::100] + 0.1 * rng.standard_normal((40, 65))).astype(np.float32)
    store = datastore_of(keys, rows_per_shard=512)

    ids, distances = search_exact(queries, store, k=200, device=device, tile_bytes=1 << 16)

    expected_ids, expected = search_exact(queries, store, k=200)
    assert_neighbors_agree(ids, expected_ids, queries, keys)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    overlap = np.mean([len({*a} & {*b}) for a, b in zip(ids, expected_ids, strict=True)]) / 200
    assert overlap > 0.9999


@pytest.mark.parametrize("device", TORCH)
def test_sums_of_halves_are_kept_in_32_bits(device):
    keys = np.full((300, 4096), 8, dtype=np.float16)
    keys[7, 0] = 9  # |k|^2 is 262,144 and more: beyond the largest half, 65,504
    queries = keys[7:8].astype(np.float32)

    rough, columns = scorer_on(device, keys).candidates(queries, 2, no_limit(queries))

    assert columns[0, 0] == 7
    np.testing.assert_allclose(rough[0], [0, 1], atol=0.1)


@pytest.mark.parametrize("device", TORCH)
@pytest.mark.parametrize("factor", [1e-38, 1e-30, 1e-6, 1.0, 1e12])
def test_queries_of_any_scale_are_cut_into_halves_without_overflow(factor, device):
    rng = np.random.default_rng(3)
    keys = rng.standard_normal((900, 33)).astype(np.float16)
    queries = (factor * rng.standard_normal((9, 33))).astype(np.float32)
    queries[0] = 0

    ids, distances = search_exact(queries, datastore_of(keys), k=7, device=device)

    expected_ids, expected = nearest_by_definition(queries, keys, 7)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    assert_neighbors_agree(ids, expected_ids, queries, keys)


@pytest.mark.parametrize("device", EVERY_DEVICE)
def test_a_query_whose_neighbors_a_product_cannot_tell_apart_is_scanned(device, monkeypatch):
    scanned, scan = [], knnlm.retrieval.engines.exact._scan
    monkeypatch.setattr(
        knnlm.retrieval.engines.exact, "_scan", lambda *a: (scanned.append(1), scan(*a))
    )
    keys, queries = adversarial(np.random.default_rng(4), 900, 16, "float32", kind="large norms")

    ids, _ = search_exact(queries, datastore_of(keys), k=5, device=device)

    assert scanned
    expected_ids, _ = nearest_by_definition(queries, keys, 5)
    assert_neighbors_agree(ids, expected_ids, queries, keys)


def test_plain_queries_are_not_scanned(monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.engines.exact, "_scan", lambda *_: pytest.fail("scanned"))
    rng = np.random.default_rng(5)
    keys = rng.standard_normal((5000, 32)).astype(np.float16)
    queries = rng.standard_normal((20, 32)).astype(np.float32)

    for device in ("cpu", "cpu:0"):
        search_exact(queries, datastore_of(keys, rows_per_shard=1024), k=20, device=device)
