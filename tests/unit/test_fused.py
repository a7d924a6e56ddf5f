"""The fused engine finds the neighbors of exact search without a datastore, and survives kills."""

import logging
import os
import signal

import numpy as np
import pytest
from retrieval_artifacts import (
    assert_neighbors_agree,
    files_of,
    find_neighbors,
    make_datastore,
    make_index,
    to_make,
    write_inputs,
    write_model,
    write_scored,
)

import knnlm.retrieval.datastore_parts
import knnlm.retrieval.engines.fused
import knnlm.retrieval.search
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.encoder import Encoder
from knnlm.retrieval.engines.fused import STATE, search_fused_part
from knnlm.retrieval.engines.settings import build_index
from knnlm.retrieval.interpolation import knn_log_probs, mean_distance, mix_log_probs
from knnlm.retrieval.neighbors import load_neighbors, merge_neighbors
from knnlm.retrieval.parts import Part
from knnlm.runtime.artifacts import ArtifactError, read_manifest
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.signals import EXIT_CODE, listen

SITE = "ffn_input_after_layer_norm"
STRIDE = 3
N_ENTRIES = 302  # of the train split
DTYPES = ["float16", "float32"]
SEARCH = {"block_queries": 17, "recall_sample": 9, "scores_mib": 1}
BLOCKS = [37, 48, 64, 1000]  # keys of a block


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model, its tokens and queries, a datastore of each dtype and the two engines."""
    folder = tmp_path_factory.mktemp("inputs")
    lm = write_inputs(folder)
    queries = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
    write_scored(folder / "queries", queries=queries, **lm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, **__: 64)
        for dtype in DTYPES:
            settings = {"site": SITE, "stride": STRIDE, "dtype": dtype, "shard_mib": 16}
            make_datastore(folder / dtype, **settings, **lm)
            make_index(
                folder / f"exact-{dtype}", datastore=folder / dtype, index={"engine": "exact"}
            )
    for block_keys in BLOCKS:
        index = {"engine": "fused", "block_keys": block_keys}
        target = to_make(folder / f"fused{block_keys}")
        build_index(target, index=index, datastore=[], head=[], parts=[])
    return folder


@pytest.fixture
def on_device(monkeypatch):
    """Return a function that makes both engines search on a device."""

    def choose(device):
        monkeypatch.setattr(knnlm.retrieval.search, "available_device", lambda: device)
        monkeypatch.setattr(knnlm.retrieval.engines.fused, "available_device", lambda: device)

    return choose


def search_exact_engine(inputs, output, *, dtype, k, **changes):
    folders = {"datastore": inputs / dtype, "index": inputs / f"exact-{dtype}"}
    find_neighbors(output, queries=inputs / "queries", **{**folders, **SEARCH, "k": k, **changes})
    return load_neighbors(output)


def search_part(
    inputs, output, *, dtype="float16", block_keys=48, k=5, part=None, model="model", **changes
):
    folders = {role: inputs / role for role in ("tokens", "queries")} | {"model": inputs / model}
    search_fused_part(
        to_make(output),
        **folders,
        index=inputs / f"fused{block_keys}",
        datastore={"site": SITE, "stride": STRIDE, "dtype": dtype, **changes},
        search={**SEARCH, "k": k},
        part=part or Part(0, 1),
    )
    return output


def search_fused(inputs, output, *, parts=1, **settings):
    folders = [
        search_part(inputs, output.with_name(f"part{i}"), part=Part(i, parts), **settings)
        for i in range(parts)
    ]
    merge_neighbors(to_make(output), parts=folders)
    return load_neighbors(output)


def perplexity(queries, neighbors):
    log_p_knn = knn_log_probs(
        neighbors.distances,
        neighbors.values,
        queries.targets,
        temperature=mean_distance(neighbors.distances),
    )
    return np.exp(-mix_log_probs(queries.lm_log_probs, log_p_knn, lmbda=0.4).mean())


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize(
    ("block_keys", "parts", "k"), [(48, 1, 5), (64, 3, 40), (1000, 1, N_ENTRIES), (37, 5, 40)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbors_and_perplexity_are_those_of_exact_search(
    dtype, block_keys, parts, k, device, inputs, tmp_path, on_device
):
    on_device(device)
    exact = search_exact_engine(inputs, tmp_path / "exact", dtype=dtype, k=k)

    settings = {"dtype": dtype, "block_keys": block_keys, "k": k}
    fused = search_fused(inputs, tmp_path / "fused", parts=parts, **settings)

    queries = load_queries(inputs / "queries")
    store = open_datastore(inputs / dtype)
    keys = np.concatenate([shard.datastore_keys for shard in store])
    assert_neighbors_agree(fused.ids, exact.ids, queries.hidden(SITE), keys)
    np.testing.assert_allclose(fused.distances, exact.distances, rtol=1e-5)
    np.testing.assert_array_equal(fused.values, store.values(fused.ids))
    assert perplexity(queries, fused) == pytest.approx(perplexity(queries, exact), rel=1e-6)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_one_device_every_bit_is_that_of_exact_search(
    dtype, device, inputs, tmp_path, on_device
):
    on_device(device)
    search_exact_engine(inputs, tmp_path / "exact", dtype=dtype, k=40)

    search_fused(inputs, tmp_path / "fused", block_keys=37, parts=2, dtype=dtype, k=40)

    blocks = sorted((tmp_path / "exact").glob("block-*.npz"))
    assert len(blocks) == 3
    for block in blocks:
        assert (tmp_path / "fused" / block.name).read_bytes() == block.read_bytes()


def test_the_manifest_says_what_was_done_and_that_nothing_was_missed(inputs, tmp_path):
    search_fused(inputs, tmp_path / "fused", parts=2)

    manifest = read_manifest(tmp_path / "fused", kind="neighbors")
    assert manifest["contents"]["search"] == {"engine": "fused", "metric": "l2"}
    assert manifest["contents"]["recall"] == 1.0
    assert manifest["contents"]["recall_queries"] == 9
    assert "datastore" not in manifest["made_from"]
    assert {"model", "tokens", "queries", "index"} <= set(manifest["made_from"])


@pytest.fixture
def encoded(monkeypatch):
    """The first keys of the blocks that the encoder was asked for."""
    starts, keys = [], Encoder.keys

    def noted(self, start, stop):
        starts.append(start)
        return keys(self, start, stop)

    monkeypatch.setattr(Encoder, "keys", noted)
    return starts


def test_a_search_that_is_asked_to_stop_goes_on_with_the_next_block(
    inputs, tmp_path, encoded, monkeypatch, caplog
):
    search_part(inputs, tmp_path / "undisturbed" / "part")
    every_block = list(range(0, N_ENTRIES, 48))
    assert encoded == every_block
    encoded.clear()
    keys = Encoder.keys

    def told_to_stop_in_the_third_block(self, start, stop):
        if start == every_block[2]:
            os.kill(os.getpid(), signal.SIGTERM)
        return keys(self, start, stop)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "keys", told_to_stop_in_the_third_block)
            listen()
            with pytest.raises(SystemExit) as stopped:
                search_part(inputs, tmp_path / "stopped" / "part")
        assert stopped.value.code == EXIT_CODE
        assert encoded == every_block[:3], "the block in hand was finished"
        assert not (tmp_path / "stopped" / "part").exists()
        listen()
        with caplog.at_level(logging.INFO, logger=LOGGER.name):
            search_part(inputs, tmp_path / "stopped" / "part")
    finally:
        signal.signal(signal.SIGTERM, before)

    assert encoded == every_block, "no block was encoded twice"
    assert f"fused search: 144 of {N_ENTRIES} keys were done before" in caplog.text
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "undisturbed")


def test_a_search_that_dies_within_a_block_repeats_that_block_alone(
    inputs, tmp_path, encoded, monkeypatch
):
    search_part(inputs, tmp_path / "undisturbed" / "part", part=Part(1, 2))
    encoded.clear()
    add_keys, n_scored = knnlm.retrieval.engines.fused.add_keys, []

    def dies_within_the_second_block(*arguments):
        if len(n_scored) == 4:  # three blocks of queries a block of keys
            raise MemoryError
        n_scored.append(1)
        add_keys(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(knnlm.retrieval.engines.fused, "add_keys", dies_within_the_second_block)
        with pytest.raises(MemoryError):
            search_part(inputs, tmp_path / "killed" / "part", part=Part(1, 2))
    search_part(inputs, tmp_path / "killed" / "part", part=Part(1, 2))

    assert encoded == [144, 192, 192, 240, 288]
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "undisturbed")


def test_a_search_that_dies_while_it_writes_encodes_nothing_again(
    inputs, tmp_path, encoded, monkeypatch
):
    search_part(inputs, tmp_path / "undisturbed" / "part")
    write_block, written = knnlm.retrieval.engines.fused.write_block, []

    def dies_at_the_second(path, arrays):
        if written:
            raise OSError("no space left on device")
        written.append(path)
        write_block(path, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(knnlm.retrieval.engines.fused, "write_block", dies_at_the_second)
        with pytest.raises(OSError, match="no space"):
            search_part(inputs, tmp_path / "killed" / "part")
    encoded.clear()
    search_part(inputs, tmp_path / "killed" / "part")

    assert encoded == []
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "undisturbed")
    assert not list(tmp_path.rglob(STATE))


@pytest.mark.parametrize("parts", [1, 3])
def test_a_share_has_the_neighbors_of_exact_search_in_that_share(parts, inputs, tmp_path):
    lm = {role: inputs / role for role in ("model", "tokens")}
    settings = {"site": SITE, "stride": STRIDE, "dtype": "float16", "shard_mib": 16, "share": 0.3}
    make_datastore(tmp_path / "store", **settings, **lm)
    store, index = tmp_path / "store", tmp_path / "index"
    make_index(index, datastore=store, index={"engine": "exact"})
    exact = search_exact_engine(
        inputs, tmp_path / "exact", dtype="float16", k=20, datastore=store, index=index
    )

    fused = search_fused(inputs, tmp_path / "fused", share=0.3, k=20, block_keys=37, parts=parts)

    np.testing.assert_array_equal(fused.ids, exact.ids)
    np.testing.assert_array_equal(fused.values, exact.values)
    assert fused.entries == exact.entries
    with pytest.raises(ValueError, match=r"from 1 to 91, .* at a share of 0\.3, got 92"):
        search_fused(inputs, tmp_path / "more", share=0.3, k=92)


def test_evenly_spaced_queries_are_searched(inputs, tmp_path):
    every = search_fused(inputs, tmp_path / "every")

    some = search_fused(inputs, tmp_path / "some", queries=7)

    assert len(some.places) == 7
    np.testing.assert_array_equal(some.ids, every.ids[some.places])


def test_queries_of_another_model_are_refused(inputs, tmp_path):
    other = write_model(tmp_path / "model", inputs / "tokenizer", seed=1)

    with pytest.raises(ArtifactError, match=r"queries was made from another model"):
        search_part(inputs, tmp_path / "part", model=other)


def test_more_neighbors_than_entries_are_refused_before_the_search(inputs, tmp_path, encoded):
    with pytest.raises(ValueError, match=r"k must be from 1 to 302, .* got 303"):
        search_part(inputs, tmp_path / "part", k=303)

    assert not encoded
