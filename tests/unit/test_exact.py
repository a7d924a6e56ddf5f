"""Exact search finds what the definition says, ties and all, on every path."""

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_artifacts import datastore_of, nearest_by_definition

from knnlm.retrieval.engines.exact import (
    CONFIDENCE,
    add_keys,
    full_distances,
    search_exact,
)
from knnlm.retrieval.engines.nearest import no_neighbors, sort_neighbors
from knnlm.retrieval.engines.scorers import FaissScorer

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
EVERY_DEVICE = ["cpu", "cpu:0", CUDA]  # "cpu:0" is the torch path, on the CPU


@pytest.fixture(params=EVERY_DEVICE)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def whole_numbers(rng, n, dim, high=4):
    """Distances between them are whole numbers, exact in fp32 on every path, with many ties."""
    return rng.integers(0, high, (n, dim)).astype(np.float32)


def test_finds_the_nearest_of_the_definition(device):
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((700, 24)).astype(np.float16)
    queries = rng.standard_normal((40, 24)).astype(np.float32)

    ids, distances = search_exact(queries, datastore_of(keys), k=9, slice_rows=100, device=device)

    expected_ids, expected = nearest_by_definition(queries, keys, 9)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_equal_distances_come_in_the_order_of_their_ids_also_at_the_last_place(device):
    rng = np.random.default_rng(1)
    keys, queries = whole_numbers(rng, 1500, 3), whole_numbers(rng, 25, 3)

    ids, distances = search_exact(queries, datastore_of(keys), k=20, slice_rows=64, device=device)

    expected_ids, expected = nearest_by_definition(queries, keys, 20)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize("within", [1000, 250], ids=["in all slices", "in the first slice"])
def test_more_identical_keys_than_the_margin_leave_those_with_the_smallest_ids(device, within):
    rng = np.random.default_rng(2)
    keys = rng.standard_normal((1000, 33)).astype(np.float32)
    identical = np.sort(rng.permutation(within)[: 5 * FaissScorer.margin])
    keys[identical] = keys[identical[0]]
    queries = keys[identical[:1]] + 0.1

    ids, _ = search_exact(queries, datastore_of(keys), k=30, slice_rows=300, device=device)

    np.testing.assert_array_equal(ids[0], identical[:30])


def test_far_from_the_origin_where_the_matrix_product_loses_all_digits(device):
    rng = np.random.default_rng(3)
    keys = (whole_numbers(rng, 900, 8, high=50) + 30_000).astype(np.float32)
    queries = (whole_numbers(rng, 10, 8, high=50) + 30_000).astype(np.float32)

    ids, distances = search_exact(queries, datastore_of(keys), k=5, slice_rows=200, device=device)

    expected_ids, expected = nearest_by_definition(queries, keys, 5)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(distances, expected)


def test_where_rounding_hides_neighbors_behind_others_every_key_is_compared(device, monkeypatch):
    # faiss takes the matrix product, which rounds, from so many queries on; by default 128,000
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    rng = np.random.default_rng(7)
    keys = (rng.uniform(0, 20, (20_000, 8)) + 30_000).astype(np.float32)
    queries = (rng.uniform(0, 20, (64, 8)) + 30_000).astype(np.float32)

    ids, distances = search_exact(
        queries, datastore_of(keys, rows_per_shard=4096), k=5, device=device
    )

    expected_ids, expected = nearest_by_definition(queries, keys, 5)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)


class UnluckyScorer(FaissScorer):
    """Rough distances are above the true ones by as much as sums of rounded terms may be."""

    def candidates(self, queries, n, limit):
        columns, exact = nearest_by_definition(queries, self.keys, self.n_keys)
        norms, roundings = np.linalg.norm(self.keys, axis=1), self.keys.shape[1] + 4
        size = (np.linalg.norm(queries, axis=1)[:, None] + norms[columns]) ** 2  # of the terms
        rough = exact + CONFIDENCE * np.sqrt(roundings) * self.error * size
        order = np.argsort(rough, axis=1)[:, :n]
        found = (np.take_along_axis(array, order, axis=1) for array in (rough, columns))
        return tuple(found)


def test_the_largest_rounding_error_hides_no_neighbor():
    rng = np.random.default_rng(8)
    keys = (rng.uniform(0, 20, (90, 8)) + 30_000).astype(np.float32)
    queries = (rng.uniform(0, 20, (64, 8)) + 30_000).astype(np.float32)
    ids, distances = no_neighbors(len(queries), 5)

    for start in (0, 45):
        add_keys(ids, distances, queries, start, UnluckyScorer(keys[start : start + 45]))

    np.testing.assert_array_equal(ids, nearest_by_definition(queries, keys, 5)[0])


def test_every_entry_can_be_asked_for(device):
    keys = whole_numbers(np.random.default_rng(4), 130, 2)

    ids, _ = search_exact(keys[:7], datastore_of(keys), k=130, slice_rows=50, device=device)

    np.testing.assert_array_equal(ids, nearest_by_definition(keys[:7], keys, 130)[0])


def test_slices_and_shards_change_no_bit(device):
    rng = np.random.default_rng(5)
    keys = rng.standard_normal((3000, 17)).astype(np.float16)
    queries = rng.standard_normal((50, 17)).astype(np.float32)

    results = [
        search_exact(
            queries, datastore_of(keys, rows_per_shard=rows), k=100, slice_rows=n, device=device
        )
        for rows, n in [(4096, 4096), (64, 500), (256, 77)]
    ]

    for ids, distances in results[1:]:
        np.testing.assert_array_equal(ids, results[0][0])
        np.testing.assert_array_equal(distances, results[0][1])


def test_no_bit_depends_on_the_queries_beside_a_query():
    rng = np.random.default_rng(6)
    datastore = datastore_of(rng.standard_normal((2000, 17)).astype(np.float16))
    queries = rng.standard_normal((64, 17)).astype(np.float32)

    ids, distances = search_exact(queries, datastore, k=10, slice_rows=512)
    alone = [search_exact(queries[i : i + 1], datastore, k=10, slice_rows=512) for i in range(64)]

    np.testing.assert_array_equal(ids, np.concatenate([one[0] for one in alone]))
    np.testing.assert_array_equal(distances, np.concatenate([one[1] for one in alone]))


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 400),
    dim=st.sampled_from([1, 2, 4, 7, 8, 12, 16, 33]),
    high=st.integers(1, 3),
    slice_rows=st.integers(1, 500),
    data=st.data(),
)
def test_any_shape_with_any_number_of_ties(seed, n, dim, high, slice_rows, data):
    rng = np.random.default_rng(seed)
    keys, queries = whole_numbers(rng, n, dim, high), whole_numbers(rng, 3, dim, high)
    k = data.draw(st.integers(1, n))

    ids, distances = search_exact(queries, datastore_of(keys), k=k, slice_rows=slice_rows)

    expected_ids, expected = nearest_by_definition(queries, keys, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(distances, expected)


def test_full_distances_leave_missing_neighbors_at_infinity():
    keys = np.eye(4, dtype=np.float16)

    actual = full_distances(
        keys[:2].astype(np.float32),
        datastore_of(keys, rows_per_shard=2),
        np.array([[3, -1, 0], [-1, -1, 1]]),
        slice_rows=3,
    )

    np.testing.assert_array_equal(actual, [[2, np.inf, 0], [np.inf, np.inf, 0]])


def test_sorting_puts_missing_neighbors_last_and_keeps_large_ids():
    ids = np.array([[-1, 2**32 - 2, 5, 4, 0]])
    distances = np.array([[np.inf, 1.0, 1.0, 0.0, -0.0]], dtype=np.float32)

    ids, distances = sort_neighbors(ids, distances, k=5)

    np.testing.assert_array_equal(ids, [[0, 4, 5, 2**32 - 2, -1]])
    np.testing.assert_array_equal(distances, [[0, 0, 1, 1, np.inf]])


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.zeros((1, 4)), 11, r"k must be from 1 to 10, .* of memory, got 11"),
        (np.zeros((1, 4)), 0, r"k must be from 1 to 10"),
        (np.zeros((1, 5)), 3, r"expected queries \(n_queries, 4\) for memory, got \(1, 5\)"),
        (np.full((1, 4), np.nan), 3, r"expected finite queries"),
    ],
)
def test_bad_input_is_refused_with_the_reason(queries, k, message):
    datastore = datastore_of(np.zeros((10, 4), dtype=np.float16))

    with pytest.raises(ValueError, match=message):
        search_exact(queries.astype(np.float32), datastore, k=k, slice_rows=8)
