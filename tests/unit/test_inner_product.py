"""Inner product as the metric: the largest is nearest, in every engine, and weighs most."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_artifacts import (
    datastore_of,
    find_neighbors,
    make_datastore,
    make_index,
    nearest_by_definition,
    to_make,
    write_datastore,
    write_inputs,
    write_scored,
)

import knnlm.retrieval.engines.exact
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.engines.exact import CONFIDENCE, _limit, add_keys, full_distances, search_exact
from knnlm.retrieval.engines.fused import search_fused_part
from knnlm.retrieval.engines.nearest import below_largest, no_neighbors, sort_neighbors
from knnlm.retrieval.engines.scorers import FaissScorer, TorchScorer
from knnlm.retrieval.engines.settings import build_index
from knnlm.retrieval.interpolation import knn_log_probs, mean_distance
from knnlm.retrieval.neighbors import load_neighbors, merge_neighbors
from knnlm.retrieval.parts import Part
from knnlm.runtime.artifacts import read_manifest

DEVICES = ["cpu", "cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)]
SITE = "ffn_input_after_layer_norm"
LM = {"site": SITE, "stride": 4, "dtype": "float16"}
SEARCH = {"k": 7, "block_queries": 17, "recall_sample": 20}
EVERY_LIST = {"n_centroids": 20, "n_probes": 20, "train_keys": 302, "rescore": True}
INDEXES = {
    "exact": {},
    "ivf_flat": EVERY_LIST,
    "ivfpq": EVERY_LIST | {"code_bytes": 4, "n_probes": 3},
}


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def search(queries, keys, k, *, rows_per_shard=64, **chosen):
    store = datastore_of(keys, rows_per_shard=rows_per_shard)
    return search_exact(queries, store, k=k, metric="ip", **chosen)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_nearest_are_those_with_the_largest_products_of_the_definition(device, dtype):
    rng = np.random.default_rng(0)
    keys = (rng.standard_normal((700, 24)) * rng.uniform(0.1, 9, (700, 1))).astype(dtype)
    queries = rng.standard_normal((40, 24)).astype(np.float32)

    ids, distances = search(queries, keys, 9, slice_rows=100, device=device)

    expected_ids, expected = nearest_by_definition(queries, keys, 9, "ip")
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-5)
    by_distance, _ = nearest_by_definition(queries, keys, 9)
    assert not np.array_equal(ids, by_distance), "both metrics find the same: nothing is tested"


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(2, 400),
    dim=st.sampled_from([1, 2, 4, 7, 8, 12, 33]),
    slice_rows=st.integers(1, 500),
    data=st.data(),
)
def test_equal_products_come_in_the_order_of_their_ids(seed, n, dim, slice_rows, data):
    rng = np.random.default_rng(seed)
    keys = rng.integers(-2, 3, (n, dim)).astype(np.float32)  # exact products, of both signs, tied
    queries = rng.integers(-2, 3, (3, dim)).astype(np.float32)
    keys[0], queries[0] = 1, 1
    k = data.draw(st.integers(1, n))

    expected_ids, expected = nearest_by_definition(queries, keys, k, "ip")
    for device in ("cpu", "cpu:0"):
        ids, distances = search(queries, keys, k, slice_rows=slice_rows, device=device)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_array_equal(distances, expected)


def adversarial(rng, n, dim, dtype, kind):
    keys = rng.standard_normal((n, dim))
    if kind == "large norms":  # products that differ little, of large terms
        keys = 300 * rng.standard_normal(dim) + 0.01 * keys
    elif kind == "one huge":
        keys[rng.integers(n)] *= 3e3
    elif kind == "duplicates":
        keys = keys[rng.integers(0, max(1, n // 8), n)]
    elif kind == "scales":
        keys *= 10.0 ** rng.uniform(-3, 3, (n, 1))
    return keys.astype(dtype), rng.standard_normal((6, dim)).astype(np.float32)


KINDS = ["plain", "large norms", "one huge", "duplicates", "scales"]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(2, 600),
    dim=st.sampled_from([3, 8, 64, 200]),
    dtype=st.sampled_from(["float16", "float32"]),
    kind=st.sampled_from(KINDS),
)
def test_no_true_neighbor_is_missed(seed, n, dim, dtype, kind):
    rng = np.random.default_rng(seed)
    keys, queries = adversarial(rng, n, dim, dtype, kind)
    k = int(rng.integers(1, n + 1))
    _, expected = nearest_by_definition(queries, keys, k, "ip")
    sizes = np.linalg.norm(queries, axis=1) * np.linalg.norm(keys.astype(float), axis=1).max()

    for device in ("cpu", "cpu:0"):
        slice_rows = int(rng.integers(1, 700))
        ids, distances = search(queries, keys, k, slice_rows=slice_rows, device=device)
        true = -np.einsum("qd,qkd->qk", queries.astype(float), keys[ids].astype(float))
        within = 1e-6 * sizes[:, None]
        assert (np.abs(true - expected) <= within).all(), "another key was nearer"
        assert (np.abs(distances - true) <= within).all()
        assert all(len(set(row)) == k for row in ids)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_rough_products_are_within_the_declared_error(kind, dtype, device):
    keys, queries = adversarial(np.random.default_rng(0), 500, 200, dtype, kind)
    if device == "cpu":
        scorer = FaissScorer(keys.astype(np.float32), metric="ip")
    else:
        scorer = TorchScorer(keys, device=device, tile_bytes=1 << 30, metric="ip")

    rough, columns = scorer.candidates(queries, len(keys), np.full(len(queries), np.inf))

    true = -(queries.astype(np.float64) @ keys.astype(np.float64).T)
    by_column = np.take_along_axis(rough, np.argsort(columns, axis=1), axis=1)
    for column in range(len(keys)):
        assert (by_column[:, column] <= _limit(queries, true[:, [column]], scorer)).all()
    assert (np.diff(rough, axis=1) >= 0).all()


class UnluckyScorer(FaissScorer):
    """Rough products are worse than the true ones by as much as sums of rounded terms may be."""

    def candidates(self, queries, n, limit):
        columns, exact = nearest_by_definition(queries, self.keys, self.n_keys, "ip")
        norms, roundings = np.linalg.norm(self.keys, axis=1), self.keys.shape[1] + 4
        size = np.linalg.norm(queries, axis=1)[:, None] * norms[columns]
        rough = exact + CONFIDENCE * np.sqrt(roundings) * self.error * size
        order = np.argsort(rough, axis=1)[:, :n]
        return tuple(np.take_along_axis(array, order, axis=1) for array in (rough, columns))


def test_the_largest_rounding_error_hides_no_neighbor():
    rng = np.random.default_rng(8)
    keys = (rng.uniform(0, 20, (90, 8)) + 30_000).astype(np.float32)
    queries = (rng.uniform(0, 20, (64, 8)) - 10).astype(np.float32)
    ids, distances = no_neighbors(len(queries), 5)

    for start in (0, 45):
        scorer = UnluckyScorer(keys[start : start + 45], metric="ip")
        add_keys(ids, distances, queries, start, scorer)

    full = full_distances(queries, datastore_of(keys), np.tile(np.arange(90), (64, 1)), metric="ip")
    expected, _ = sort_neighbors(np.tile(np.arange(90), (64, 1)), full, k=5)
    np.testing.assert_array_equal(ids, expected)


def test_plain_queries_are_not_scanned(monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.engines.exact, "_scan", lambda *_: pytest.fail("scanned"))
    rng = np.random.default_rng(5)
    keys = rng.standard_normal((5000, 32)).astype(np.float16)

    for device in ("cpu", "cpu:0"):
        search(rng.standard_normal((20, 32)).astype(np.float32), keys, 20, device=device)


def test_full_products_are_those_of_the_search_to_the_bit():
    rng = np.random.default_rng(6)
    keys = rng.standard_normal((500, 33)).astype(np.float16)
    queries = rng.standard_normal((9, 33)).astype(np.float32)
    ids, distances = search(queries, keys, 20)
    ids[0, 3] = -1

    again = full_distances(queries, datastore_of(keys), ids, slice_rows=77, metric="ip")

    distances[0, 3] = np.inf
    np.testing.assert_array_equal(again, distances)


def test_numbers_of_both_signs_sort_as_numbers():
    ids = np.array([[0, 7, 5, 4, -1, 6, 9]])
    distances = np.array([[-0.0, 3.0, -2.5, -64e9, np.inf, 0.0, -2.5]], dtype=np.float32)

    expected = [[4, 5, 9, 0, 6, 7, -1]]
    for added in (0, 2**40):  # small and large ids are sorted in two ways
        sorted_ids, found = sort_neighbors(np.where(ids < 0, -1, ids + added), distances, k=7)
        np.testing.assert_array_equal(np.where(sorted_ids < 0, -1, sorted_ids - added), expected)
        np.testing.assert_array_equal(found[0], [-64e9, -2.5, -2.5, 0, 0, 3, np.inf])


def test_the_largest_product_weighs_most():
    """The sign test: a softmax over +score, computed by hand."""
    keys = np.array([[1, 0], [3, 0], [-2, 0], [0, 5]], dtype=np.float16)
    products = np.array([2.0, 6.0, -4.0, 0.0])  # with the query (2, 0)
    ids, distances = search(np.array([[2, 0]], dtype=np.float32), keys, 4)

    stored = below_largest(distances)
    actual = knn_log_probs(stored, ids.astype(np.int32), np.array([1]), temperature=3.0)

    np.testing.assert_array_equal(ids, [[1, 0, 3, 2]])
    np.testing.assert_array_equal(stored, [[0, 4, 6, 10]])
    weights = np.exp(products / 3)
    np.testing.assert_allclose(np.exp(actual), weights[1] / weights.sum(), rtol=1e-6)
    assert mean_distance(stored) == 6 - np.mean(products)  # the spread: largest less mean


def test_missing_neighbors_stay_missing_below_the_largest():
    distances = np.array([[-3, 1, np.inf], [np.inf] * 3], dtype=np.float32)

    np.testing.assert_array_equal(below_largest(distances), [[0, 4, np.inf], [np.inf] * 3])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A datastore of an LM, its queries, and an index of each engine."""
    folder = tmp_path_factory.mktemp("inputs")
    lm = write_inputs(folder)
    make_datastore(folder / "datastore", shard_mib=16, **LM, **lm)
    queries = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
    write_scored(folder / "queries", queries=queries, **lm)
    for engine, settings_of in INDEXES.items():
        index = {"engine": engine, "metric": "ip", **settings_of}
        make_index(folder / engine, datastore=folder / "datastore", index=index)
    return folder


def found_by_definition(inputs, k):
    (shard,) = open_datastore(inputs / "datastore")
    hidden = load_queries(inputs / "queries").hidden(SITE)
    return nearest_by_definition(hidden, shard.datastore_keys, k, "ip")


@pytest.mark.parametrize("engine", ["exact", "ivf_flat"])
def test_stored_neighbors_are_those_of_the_definition(inputs, tmp_path, engine):
    folders = {role: inputs / role for role in ("datastore", "queries")}
    find_neighbors(tmp_path / "found", index=inputs / engine, **folders, **SEARCH)

    found = load_neighbors(tmp_path / "found")

    ids, distances = found_by_definition(inputs, 7)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.distances, distances - distances[:, :1], atol=1e-4)
    contents = read_manifest(tmp_path / "found", kind="neighbors")["contents"]
    assert contents["search"]["metric"] == "ip"
    assert contents["recall"] == 1


def test_codes_choose_and_full_products_are_kept_beside_theirs(inputs, tmp_path):
    folders = {role: inputs / role for role in ("datastore", "queries")}
    find_neighbors(tmp_path / "found", index=inputs / "ivfpq", **folders, **SEARCH)

    found = load_neighbors(tmp_path / "found", rough=True)

    (shard,) = open_datastore(inputs / "datastore")
    hidden = load_queries(inputs / "queries").hidden(SITE)
    products = np.einsum("qd,qkd->qk", hidden, shard.datastore_keys[found.ids].astype(np.float32))
    np.testing.assert_allclose(found.distances, products[:, :1] - products, atol=1e-3)
    assert (np.diff(found.distances) >= 0).all()
    assert (found.rough.min(axis=1) == 0).all()
    assert np.corrcoef(found.rough.ravel(), found.distances.ravel())[0, 1] > 0.5
    contents = read_manifest(tmp_path / "found", kind="neighbors")["contents"]
    assert 0.2 < contents["recall"] < 1


@pytest.mark.parametrize(("block_keys", "parts"), [(48, 1), (64, 3)])
def test_the_fused_engine_finds_the_same_without_a_datastore(inputs, tmp_path, block_keys, parts):
    index = {"engine": "fused", "metric": "ip", "block_keys": block_keys}
    build_index(to_make(tmp_path / "index"), index=index, datastore=[], head=[], parts=[])
    folders = [tmp_path / f"part{number}" for number in range(parts)]
    for number, folder in enumerate(folders):
        search_fused_part(
            to_make(folder),
            **{role: inputs / role for role in ("model", "tokens", "queries")},
            index=tmp_path / "index",
            datastore=LM,
            search=SEARCH | {"scores_mib": 1},
            part=Part(number, parts),
        )
    merge_neighbors(to_make(tmp_path / "found"), parts=folders)

    found = load_neighbors(tmp_path / "found")

    np.testing.assert_array_equal(found.ids, found_by_definition(inputs, 7)[0])


def test_the_centroids_of_inner_products_have_unit_length(inputs):
    import faiss

    trained = faiss.read_index(str(inputs / "ivfpq" / "trained.faiss"))
    centroids = trained.quantizer.reconstruct_n(0, trained.nlist)

    assert trained.metric_type == faiss.METRIC_INNER_PRODUCT
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)


def test_keys_that_are_all_zero_are_refused(tmp_path, device):
    keys = np.zeros((300, 8), dtype=np.float16)

    with pytest.raises(ValueError, match=r"expected keys of memory .*all zero; build .*metric l2"):
        search(np.ones((3, 8), dtype=np.float32), keys, 5, device=device)


def test_products_that_leave_fp32_are_refused(device):
    keys = np.full((40, 8), 3e15, dtype=np.float32)
    queries = np.full((2, 8), 1e25, dtype=np.float32)

    with pytest.raises(ValueError, match=r"queries with a norm of up to 2\.8e\+25 and keys .*8\.5"):
        search(queries, keys, 5, device=device)


@pytest.mark.parametrize(("value", "message"), [(0, "all zero"), (1e20, "norm of up to 2.8e")])
@pytest.mark.parametrize("engine", ["ivf_flat", "ivfpq"])
def test_an_index_of_such_keys_is_refused(tmp_path, engine, value, message):
    keys = np.full((300, 8), value, dtype=np.float32)
    store = write_datastore(tmp_path / "store", keys)
    index = {"engine": engine, "metric": "ip", **EVERY_LIST, "code_bytes": 4}

    with pytest.raises(ValueError, match=message):
        make_index(tmp_path / "index", datastore=store, index=index)
