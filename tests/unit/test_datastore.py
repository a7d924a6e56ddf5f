"""A datastore holds the model's hidden states, survives a kill and notices damage."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_artifacts import write_tokenizer, write_tokens
from retrieval_artifacts import (
    datastore_of,
    files_of,
    make_datastore,
    write_inputs,
    write_model,
)

import knnlm.retrieval.datastore_parts
import knnlm.retrieval.encoder
from knnlm.lm.anatomy import capture
from knnlm.lm.model import load_model
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.datastore_parts import rows_of_shard
from knnlm.retrieval.encoder import Encoder
from knnlm.retrieval.sampling import Entries, group_by_range
from knnlm.runtime.artifacts import ArtifactError, read_manifest, verify_checksums
from knnlm.text.tokens import load_tokens

SITE = "ffn_input_after_layer_norm"
SETTINGS = {"site": SITE, "stride": 3, "dtype": "float16", "shard_mib": 16}
CONTEXT = 8  # of the small model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def small_shards(monkeypatch):
    """32 entries a shard, 24 tokens a batch: 10 shards whose borders cut windows and batches."""
    monkeypatch.setattr(knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, **__: 32)
    monkeypatch.setattr(knnlm.retrieval.encoder, "TOKENS_A_BATCH", 24)


def build(inputs, output, **changes):
    return open_datastore(make_datastore(output, **{**inputs, **SETTINGS, **changes}))


def test_entry_i_is_the_hidden_state_at_i_and_the_token_after_it(inputs, tmp_path, small_shards):
    stream = load_tokens(inputs["tokens"], "train").tokens
    model = load_model(inputs["model"])

    store = build(inputs, tmp_path / "store", dtype="float32")

    keys = np.concatenate([shard.datastore_keys for shard in store])
    values = np.concatenate([shard.datastore_values for shard in store])
    assert store.n_entries == len(stream) - 1
    assert [shard.first_id for shard in store] == list(range(0, len(stream) - 1, 32))
    np.testing.assert_array_equal(values, stream[1:])
    for i in (0, 5, 31, 32, 100, len(stream) - 2):
        # Windows of 8 tokens move on by 3: position i is read in the first window that has it,
        # and the last window ends with the last entry.
        stop = min(max(CONTEXT, CONTEXT + 3 * -(-(i + 1 - CONTEXT) // 3)), len(stream) - 1)
        tokens = stream[stop - CONTEXT : i + 1].astype(np.int64)
        expected = capture(model, torch.from_numpy(tokens)[None], [SITE])[SITE][0, -1]
        np.testing.assert_allclose(keys[i], expected, rtol=1e-4, atol=1e-5)


def test_a_killed_build_ends_with_the_bytes_of_an_undisturbed_one(
    inputs, tmp_path, small_shards, monkeypatch
):
    build(inputs, tmp_path / "undisturbed" / "store")
    write_shard = knnlm.retrieval.datastore_parts._write_shard
    written = []

    def dies_at_the_fourth(folder, *arguments):
        if len(written) == 3:
            (folder.with_name(f".{folder.name}.part")).mkdir()  # as a kill leaves it
            raise KeyboardInterrupt
        written.append(folder.name)
        write_shard(folder, *arguments)

    monkeypatch.setattr(knnlm.retrieval.datastore_parts, "_write_shard", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        build(inputs, tmp_path / "killed" / "store")
    assert not (tmp_path / "killed" / "store").exists()

    def continues(folder, *arguments):
        assert folder.name not in written, "a finished shard is kept"
        write_shard(folder, *arguments)

    monkeypatch.setattr(knnlm.retrieval.datastore_parts, "_write_shard", continues)
    build(inputs, tmp_path / "killed" / "store")

    assert files_of(tmp_path / "killed") == files_of(tmp_path / "undisturbed")


def test_the_size_of_shards_changes_no_byte_of_the_keys(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.encoder, "TOKENS_A_BATCH", 24)
    found = []
    for rows in (16, 128, 512):
        monkeypatch.setattr(
            knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, n=rows, **__: n
        )
        store = build(inputs, tmp_path / str(rows))
        found.append(np.concatenate([shard.datastore_keys for shard in store]))

    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_range_of_keys_has_the_same_bytes_in_any_order(inputs, data):
    stream = load_tokens(inputs["tokens"], "train").tokens[:100]
    model = load_model(inputs["model"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knnlm.retrieval.encoder, "TOKENS_A_BATCH", 24)
        encoder = Encoder(model, stream, site=SITE, stride=5, dtype="float16")
    whole = encoder.keys(0, 99)
    start = data.draw(st.integers(0, 98))
    stop = data.draw(st.integers(start + 1, 99))

    np.testing.assert_array_equal(encoder.keys(start, stop), whole[start:stop])


def test_a_share_is_drawn_by_its_seed(inputs):
    stream = load_tokens(inputs["tokens"], "train").tokens[:100]
    how = {"site": SITE, "stride": 5, "dtype": "float16", "share": 0.5}

    encoder = Encoder(load_model(inputs["model"]), stream, **how, seed=1)

    assert encoder.entries == Entries(99, share=0.5, seed=1)


def test_values_of_a_short_last_shard_are_its_own():
    store = datastore_of(np.zeros((8, 1), np.float16), rows_per_shard=5)

    np.testing.assert_array_equal(store.values(np.arange(8)), np.arange(8))


def keys_and_values(store):
    return (np.concatenate([shard[i] for shard in store]) for i in (1, 2))


@pytest.mark.parametrize("parts", [1, 3])
def test_a_share_holds_its_entries_of_the_whole_datastore(parts, inputs, tmp_path, small_shards):
    keys, values = keys_and_values(build(inputs, tmp_path / "whole"))
    held = []

    for share in (0.1, 0.4):
        store = build(inputs, tmp_path / str(share), share=share, parts=parts, seed=7)

        positions = store.entries.positions(np.arange(store.n_entries))
        some_keys, some_values = keys_and_values(store)
        assert store.n_entries == round(share * len(keys))
        np.testing.assert_array_equal(some_keys, keys[positions])
        np.testing.assert_array_equal(some_values, values[positions])
        held.append(positions)
    assert np.isin(*held).all()


def test_a_share_of_1_has_the_bytes_of_a_datastore_without_one(inputs, tmp_path, small_shards):
    without, whole = (
        files_of(build(inputs, tmp_path / name, **change).folder)
        for name, change in (("without", {}), ("whole", {"share": 1.0, "seed": 5}))
    )

    assert {n: b for n, b in without.items() if n.endswith(".npy")} == {
        n: b for n, b in whole.items() if n.endswith(".npy")
    }
    assert set(without) == set(whole)


def test_a_killed_build_of_a_share_goes_on(inputs, tmp_path, small_shards, monkeypatch):
    expected = files_of(build(inputs, tmp_path / "undisturbed", share=0.4).folder)
    write_shard, written = knnlm.retrieval.datastore_parts._write_shard, []

    def dies_at_the_third(folder, *arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(folder.name)
        write_shard(folder, *arguments)

    monkeypatch.setattr(knnlm.retrieval.datastore_parts, "_write_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(inputs, tmp_path / "killed", share=0.4)
    written.append("going on")
    build(inputs, tmp_path / "killed", share=0.4)

    shards = [f"shard-{number:05d}" for number in range(4)]
    assert written == [*shards[:2], "going on", *shards[2:]], "a finished shard is kept"
    assert files_of(tmp_path / "killed") == expected


def test_rows_of_a_shard_are_a_power_of_two_that_fits():
    assert rows_of_shard(2048, dim=1024, dtype="float16") == 1 << 20
    assert rows_of_shard(16, dim=128, dtype="float16") == 65_536
    assert rows_of_shard(16, dim=129, dtype="float16") == 32_768
    with pytest.raises(ValueError, match="at least one key of 600000 float16, got 1"):
        rows_of_shard(1, dim=600_000, dtype="float16")


def test_slices_cross_the_borders_of_shards():
    keys = np.arange(60, dtype=np.float16).reshape(20, 3)

    slices = [(i, s.copy()) for i, s in datastore_of(keys, rows_per_shard=4).slices(7)]

    assert [i for i, _ in slices] == [0, 7, 14]
    assert all(part.dtype == np.float32 for _, part in slices)
    np.testing.assert_array_equal(np.concatenate([part for _, part in slices]), keys)


def test_values_are_looked_up_by_id_and_missing_ones_stay_missing():
    values = np.arange(100, 120, dtype=np.uint16)
    store = datastore_of(np.zeros((20, 1), np.float16), values, rows_per_shard=8)

    actual = store.values(np.array([[19, -1, 0], [8, 7, -1]]))

    assert actual.dtype == np.int32
    np.testing.assert_array_equal(actual, [[119, -1, 100], [108, 107, -1]])


@given(
    ids=st.lists(st.integers(-1, 300_000), max_size=30),
    n_rows=st.sampled_from([1, 3, 7, 1000]),
)
def test_groups_hold_every_id_once_in_the_range_they_name(ids, n_rows):
    ids = np.array(ids, dtype=np.int64)

    groups = list(group_by_range(ids, n_rows))

    places = [place for _, found in groups for place in found]
    assert sorted(places) == list(np.flatnonzero(ids >= 0))
    assert [number for number, _ in groups] == sorted({i // n_rows for i in ids if i >= 0})
    for number, found in groups:
        assert (ids[found] // n_rows == number).all()


def damage_truncated(file):
    file.write_bytes(file.read_bytes()[:-1])


def damage_missing(file):
    file.unlink()


def damage_header(file):  # same size, another shape
    file.write_bytes(file.read_bytes().replace(b"(32, 16)", b"(16, 32)"))


@pytest.mark.parametrize("damage", [damage_truncated, damage_missing, damage_header])
def test_a_damaged_shard_is_named_when_the_datastore_is_opened(
    damage, inputs, tmp_path, small_shards
):
    store = build(inputs, tmp_path / "store")
    damage(store.folder / "shard-00002" / "datastore_keys.npy")

    with pytest.raises(ArtifactError, match=r"shard-00002/datastore_keys\.npy.*rebuild"):
        open_datastore(store.folder)


def test_an_altered_shard_is_named_by_its_checksum(inputs, tmp_path, small_shards):
    store = build(inputs, tmp_path / "store")
    file = store.folder / "shard-00001" / "datastore_values.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(ArtifactError, match=r"shard-00001/datastore_values\.npy"):
        verify_checksums(store.folder, kind="datastore")


def test_the_manifest_lists_every_shard_with_its_checksum(inputs, tmp_path, small_shards):
    store = build(inputs, tmp_path / "store")

    verify_checksums(store.folder, kind="datastore")

    assert len(read_manifest(store.folder, kind="datastore")["files"]) == 3 * 10


def test_keys_that_fp16_cannot_hold_are_refused(inputs, tmp_path):
    # The stream before a layer norm grows with the weights.
    model = write_model(tmp_path / "model", inputs["tokens"].with_name("tokenizer"), scale=3e4)

    with pytest.raises(ValueError, match=r"does not fit torch\.float16; .* float32"):
        build(
            {**inputs, "model": model},
            tmp_path / "store",
            site="ffn_input_before_layer_norm",
        )


def test_a_model_with_another_tokenizer_is_refused(inputs, tmp_path):
    theirs = write_tokenizer(tmp_path / "tokenizer", name="theirs")
    model = write_model(tmp_path / "model", theirs)

    with pytest.raises(ArtifactError, match="another tokenizer"):
        build({**inputs, "model": model}, tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, r"share of a datastore must be in \(0, 1\], got 1\.5"),
        ({"dtype": "bfloat16"}, "dtype must be one of float16, float32, got bfloat16"),
        ({"site": "ffn_output"}, "unknown site ffn_output"),
        ({"stride": 9}, "stride must be between 1 and the context of 8 tokens, got 9"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(change, message, inputs, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(inputs, tmp_path / "store", **change)

    assert not any(tmp_path.rglob("*.npy"))


def test_a_split_shorter_than_a_window_is_refused(inputs, tmp_path):
    tokens = write_tokens(
        tmp_path / "tokens", inputs["tokens"].with_name("tokenizer"), lengths={"train": [7]}
    )

    with pytest.raises(ValueError, match="has 8 tokens, too few for a window of 8"):
        build({**inputs, "tokens": tokens}, tmp_path / "store")
