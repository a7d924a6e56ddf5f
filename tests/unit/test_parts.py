"""Parts tile the rows, and what is made in any number of parts is the same to the byte."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieval_artifacts import (
    files_of,
    find_neighbors,
    make_datastore,
    make_index,
    to_make,
    write_inputs,
    write_scored,
)

import knnlm.retrieval.datastore_parts
from knnlm.retrieval.datastore_parts import build_datastore_part
from knnlm.retrieval.neighbors import load_neighbors, merge_neighbors
from knnlm.retrieval.parts import Part, join_parts, read_parts
from knnlm.runtime.artifacts import ArtifactError, read_manifest, verify_checksums

SITE = "ffn_input_after_layer_norm"
DATASTORE = {"site": SITE, "stride": 4, "dtype": "float16", "shard_mib": 16}
QUERIES = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
SEARCH = {"k": 5, "block_queries": 17, "recall_sample": 20}
IVF = {"n_centroids": 20, "n_probes": 2, "train_keys": 302, "rescore": True}
INDEXES = {
    "exact": {"engine": "exact"},
    "ivf_flat": {"engine": "ivf_flat", **IVF},
    "ivfpq": {"engine": "ivfpq", **IVF, "code_bytes": 4},
}
ROWS_PER_SHARD = 64  # of 302: the last of five shards is short
COUNTS = [1, 2, 3, 5, 7]  # with seven parts two own nothing


@given(
    n_rows=st.one_of(st.integers(1, 5000), st.integers(2**31, 2**42)),
    unit=st.one_of(st.integers(1, 300), st.integers(2**20, 2**33)),
    count=st.integers(1, 64),
)
def test_parts_tile_the_rows_in_whole_units_as_even_as_units_allow(n_rows, unit, count):
    owned = [Part(number, count).rows(n_rows, unit=unit) for number in range(count)]

    borders = [0, *(rows.stop for rows in owned)]
    assert [rows.start for rows in owned] == borders[:-1]
    assert borders[-1] == n_rows
    assert not any(border % unit for border in borders if border != n_rows)
    n_units = [-(-len(rows) // unit) for rows in owned]
    assert max(n_units) - min(n_units) <= 1


def test_three_billion_rows_are_cut_at_the_borders_of_shards():
    owned = [Part(number, 4).rows(3_000_000_001, unit=1 << 20) for number in range(4)]

    shards = -(-3_000_000_001 // (1 << 20))  # 2,862: two of the parts own one more
    assert [rows.start >> 20 for rows in owned] == [0, 715, 1431, 2146]
    assert shards - 2146 == 716
    assert owned[-1].stop == 3_000_000_001


@pytest.mark.parametrize("number", [-1, 3])
def test_a_part_that_does_not_exist_is_refused(number):
    with pytest.raises(ValueError, match=rf"expected a part from 0 to 2, got {number}"):
        Part(number, 3).rows(10, unit=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model, its tokens and queries, and a datastore and indexes in each number of parts."""
    folder = tmp_path_factory.mktemp("inputs")
    lm = write_inputs(folder)
    write_scored(folder / "queries", queries=QUERIES, **lm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, **__: ROWS_PER_SHARD
        )
        for parts in COUNTS:
            make_datastore(folder / f"datastore{parts}", parts=parts, **DATASTORE, **lm)
            for name, index in INDEXES.items():
                output = folder / f"{name}{parts}"
                make_index(output, datastore=folder / "datastore1", index=index, parts=parts)
    return folder


def find(inputs, output, *, engine="exact", parts=1):
    folders = {"datastore": "datastore1", "index": f"{engine}{parts}", "queries": "queries"}
    folders = {role: inputs / name for role, name in folders.items()}
    return find_neighbors(output, parts=parts, **folders, **SEARCH)


@pytest.mark.parametrize("parts", COUNTS[1:])
@pytest.mark.parametrize("name", ["datastore", *INDEXES])
def test_the_number_of_parts_changes_no_byte_of_what_is_joined(name, parts, inputs):
    joined = files_of(inputs / f"{name}{parts}")

    assert joined == files_of(inputs / f"{name}1")
    verify_checksums(inputs / f"{name}{parts}", kind=name if name == "datastore" else "index")


@pytest.mark.parametrize("parts", COUNTS[1:])
@pytest.mark.parametrize("engine", INDEXES)
def test_the_number_of_parts_changes_no_neighbor(engine, parts, inputs, tmp_path):
    whole = find(inputs, tmp_path / "whole", engine=engine)

    merged = find(inputs, tmp_path / "merged", engine=engine, parts=parts)

    for name in ("ids", "distances", "values"):
        expected, actual = (getattr(load_neighbors(folder), name) for folder in (whole, merged))
        np.testing.assert_array_equal(actual, expected)
    assert files_of(merged) == files_of(whole)


def test_a_joined_datastore_is_linked_to_its_parts_and_not_copied(inputs):
    joined = inputs / "datastore3"
    parts = [inputs / f"datastore3-part{number}" for number in range(3)]
    files = {
        path.relative_to(part): path
        for part in parts
        for path in part.rglob("*")
        if path.is_file() and path.parent != part  # the manifest of a part stays behind
    }

    assert len([name for name in files if name.suffix == ".npy"]) == 2 * 5
    for name, path in files.items():
        assert (joined / name).stat().st_ino == path.stat().st_ino
    assert {p.relative_to(joined) for p in joined.rglob("*") if p.is_file()} == {
        *files,
        (joined / "manifest.json").relative_to(joined),
    }


def test_a_search_in_one_part_is_linked_and_not_written_again(inputs, tmp_path):
    find(inputs, tmp_path / "neighbors")

    blocks = sorted((tmp_path / "neighbors").glob("block-*.npz"))
    assert blocks
    for block in blocks:
        part = tmp_path / "neighbors-part0" / block.name
        assert block.stat().st_ino == part.stat().st_ino


def test_the_origin_of_what_is_joined_is_that_of_its_parts(inputs):
    whole = read_manifest(inputs / "datastore3", kind="datastore")
    part = read_manifest(inputs / "datastore3-part1", kind="datastore_part")

    assert whole["settings"] == part["settings"]
    assert whole["made_from"] == part["made_from"]
    assert part["contents"].pop("rows") == [64, 192]
    assert whole["contents"] == part["contents"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2], r"expected .*part1 to go on at row 0, got rows from 64.*every part once"),
        ([0, 2], r"expected .*part2 to go on at row 64, got rows from 192.*every part once"),
        ([0, 1], r"expected .*part1 to end at row 302, got 192.*every part once"),
        ([0, 1, 1, 2], r"expected .*part1 to go on at row 192, got rows from 64"),
        ([1, 0, 2], r"expected .*part1 to go on at row 0, got rows from 64"),
    ],
    ids=["no first", "no middle", "no last", "one doubled", "out of order"],
)
def test_missing_and_doubled_parts_are_refused(numbers, message, inputs, tmp_path):
    parts = [inputs / f"datastore3-part{number}" for number in numbers]

    with pytest.raises(ArtifactError, match=message):
        join_parts(to_make(tmp_path / "joined"), kind="datastore", parts=parts)

    assert not (tmp_path / "joined").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 3}, r"the settings of .*other .*, got stride 3 for 4; remove .*other"),
        ({"share": 0.5}, r"the settings of .*other .*, got share 0\.5 for 1\.0"),
        ({"dtype": "float32"}, r"the settings of .*other .*, got .*dtype float32 for float16"),
    ],
)
def test_a_part_of_another_datastore_is_refused(change, message, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, **__: 64)
    folders = {role: inputs / role for role in ("model", "tokens")}
    datastore = {**DATASTORE, **change}
    other = tmp_path / "other"
    build_datastore_part(to_make(other), part=Part(1, 3), datastore=datastore, **folders)
    parts = [inputs / "datastore3-part0", other, inputs / "datastore3-part2"]

    with pytest.raises(ArtifactError, match=message):
        join_parts(to_make(tmp_path / "joined"), kind="datastore", parts=parts)


def test_a_part_with_shards_of_another_size_is_refused(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, **__: 32)
    folders = {role: inputs / role for role in ("model", "tokens")}
    other = tmp_path / "other"
    build_datastore_part(to_make(other), part=Part(0, 3), datastore=DATASTORE, **folders)
    parts = [inputs / "datastore3-part0", other]

    with pytest.raises(ArtifactError, match=r"the contents of .*got rows_per_shard 32 for 64"):
        read_parts(parts, kind="datastore_part")


def test_codes_of_another_trained_index_are_refused(inputs, tmp_path):
    make_index(tmp_path / "other", datastore=inputs / "datastore1", index=INDEXES["ivfpq"], seed=1)

    with pytest.raises(ArtifactError, match=r"ivfpq2-part0 was made from another head"):
        join_parts(
            to_make(tmp_path / "index"),
            kind="index",
            parts=[inputs / f"ivfpq2-part{number}" for number in range(2)],
            heads=[tmp_path / "other-trained"],
        )


def test_neighbors_of_another_search_are_not_merged(inputs, tmp_path):
    find(inputs, tmp_path / "two", parts=2)
    folders = {role: inputs / role for role in ("queries",)}
    find_neighbors(
        tmp_path / "more",
        parts=2,
        datastore=inputs / "datastore1",
        index=inputs / "exact1",
        **folders,
        **{**SEARCH, "block_queries": 30},
    )

    with pytest.raises(ArtifactError, match=r"more-part1 .*, got block_queries 30 for 17"):
        merge_neighbors(
            to_make(tmp_path / "merged"), parts=[tmp_path / "two-part0", tmp_path / "more-part1"]
        )


def test_a_truncated_part_is_refused(inputs, tmp_path):
    part = shutil.copytree(inputs / "datastore2-part1", tmp_path / "part")
    file = sorted(part.rglob("datastore_keys.npy"))[-1]
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(ArtifactError, match=r"expected .*datastore_keys\.npy to have .* bytes"):
        read_parts([inputs / "datastore2-part0", part], kind="datastore_part")
