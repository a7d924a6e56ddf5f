import errno
import json

import numpy as np
import pytest

from knnlm.runtime import artifacts, making
from knnlm.runtime.artifacts import ArtifactError
from knnlm.runtime.full_disk import DiskFullError


def make_artifact(folder, kind="datastore", made_from=None):
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.save_array(folder / "values.npy", np.arange(10, dtype=np.uint16))
    artifacts.write_manifest(
        folder,
        kind=kind,
        settings={"dtype": "float16"},
        made_from=made_from or {"model": "a" * 64},
        contents={"n_entries": 10},
    )
    return folder


def fail_halfway(path, error):
    with artifacts.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_manifest_lists_every_file_with_its_size_and_checksum(tmp_path):
    folder = make_artifact(tmp_path / "datastore")

    manifest = artifacts.read_manifest(folder, kind="datastore")

    recorded = manifest["files"]["values.npy"]
    assert recorded["bytes"] == (folder / "values.npy").stat().st_size
    assert recorded["sha256"] == artifacts.sha256_file(folder / "values.npy")


def test_what_a_killed_writer_left_is_no_part_of_an_artifact(tmp_path):
    folder = make_artifact(tmp_path / "whole")
    killed = tmp_path / "killed"
    (killed / "inner").mkdir(parents=True)
    for name in (".tmp4MZofB", ".values.npy.part", "inner/.tmpXyz"):
        (killed / name).write_text("half")

    make_artifact(killed)

    assert sorted(path.name for path in killed.rglob("*") if path.is_file()) == [
        "manifest.json",
        "values.npy",
    ]
    identities = [artifacts.identity(path, kind="datastore") for path in (folder, killed)]
    assert identities[0] == identities[1]


def test_a_folder_without_a_manifest_is_not_an_artifact(tmp_path):
    with pytest.raises(ArtifactError, match=r"no readable manifest\.json.*not a whole datastore"):
        artifacts.read_manifest(tmp_path, kind="datastore")


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    folder = make_artifact(tmp_path / "x", kind="model")

    with pytest.raises(ArtifactError, match=r"to be a datastore .* got model"):
        artifacts.read_manifest(folder, kind="datastore")


def test_an_artifact_of_another_schema_version_is_refused(tmp_path):
    folder = make_artifact(tmp_path / "x")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))

    with pytest.raises(ArtifactError, match="version 99"):
        artifacts.read_manifest(folder, kind="datastore")


def test_a_truncated_file_is_found_by_its_size(tmp_path):
    folder = make_artifact(tmp_path / "x")
    content = (folder / "values.npy").read_bytes()
    (folder / "values.npy").write_bytes(content[:-1])

    with pytest.raises(ArtifactError, match=r"values\.npy to have 148 bytes, it has 147; remove"):
        artifacts.read_manifest(folder, kind="datastore")


def test_a_missing_file_is_named(tmp_path):
    folder = make_artifact(tmp_path / "x")
    (folder / "values.npy").unlink()

    with pytest.raises(ArtifactError, match=r"values\.npy.*it is missing"):
        artifacts.read_manifest(folder, kind="datastore")


@pytest.mark.parametrize("position", [0, 60, 128, 147])
def test_a_flipped_byte_is_found_by_its_checksum(tmp_path, position):
    folder = make_artifact(tmp_path / "x")
    content = bytearray((folder / "values.npy").read_bytes())
    content[position] ^= 1
    (folder / "values.npy").write_bytes(content)

    artifacts.read_manifest(folder, kind="datastore")  # sizes alone do not tell
    with pytest.raises(ArtifactError, match=r"values\.npy is not what was written"):
        artifacts.verify_checksums(folder, kind="datastore")


def test_identity_changes_with_content_and_origin_but_not_with_the_folder(tmp_path):
    one = artifacts.identity(make_artifact(tmp_path / "one"), kind="datastore")
    same = artifacts.identity(make_artifact(tmp_path / "two"), kind="datastore")
    other = make_artifact(tmp_path / "three", made_from={"model": "b" * 64})

    assert one == same
    assert one != artifacts.identity(other, kind="datastore")


def test_an_artifact_of_another_model_is_refused(tmp_path):
    folder = make_artifact(tmp_path / "x")

    with pytest.raises(ArtifactError, match="made from another model"):
        artifacts.require_origin(folder, kind="datastore", role="model", expected="b" * 64)


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "file.json"
    artifacts.save_json(path, {"old": True})

    with pytest.raises(RuntimeError):
        fail_halfway(path, RuntimeError())

    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_with_the_file_and_the_remedy(tmp_path):
    full = OSError(errno.ENOSPC, "no space left on device")

    with pytest.raises(DiskFullError, match=r"disk is full while writing .*keys\.npy; free"):
        fail_halfway(tmp_path / "keys.npy", full)

    assert not list(tmp_path.iterdir())


def test_a_foreign_file_is_no_array(tmp_path):
    (tmp_path / "keys.npy").write_bytes(b"\x00" * 64)

    with pytest.raises(ArtifactError, match=r"keys\.npy cannot be read as a \.npy array"):
        artifacts.load_array(tmp_path / "keys.npy")


def test_a_pickled_array_is_refused(tmp_path):
    np.save(tmp_path / "keys.npy", np.array([{}], dtype=object), allow_pickle=True)

    with pytest.raises(ArtifactError, match="cannot be read"):
        artifacts.load_array(tmp_path / "keys.npy")


def test_an_array_of_another_type_or_width_is_refused(tmp_path):
    artifacts.save_array(tmp_path / "keys.npy", np.zeros((4, 3), np.float16))

    with pytest.raises(ArtifactError, match="to hold float32, got float16"):
        artifacts.load_array(tmp_path / "keys.npy", dtype=np.float32)
    with pytest.raises(ArtifactError, match=r"8 columns, got shape \(4, 3\)"):
        artifacts.load_array(tmp_path / "keys.npy", columns=8)


def test_units_of_other_settings_wait_in_another_folder(tmp_path):
    output = tmp_path / "results" / "run" / "datastores" / "base"

    one = making.partial_folder(output, "1" * 64, {})
    two = making.partial_folder(output, "2" * 64, {})

    assert one != two
    assert one.relative_to(tmp_path).parts[:4] == ("results", "run", "partial", "datastores")


def test_publishing_moves_the_whole_folder_and_drops_what_is_stale(tmp_path):
    output = tmp_path / "results" / "run" / "datastores" / "base"
    stale = making.partial_folder(output, "1" * 64, {})
    partial = make_artifact(making.partial_folder(output, "2" * 64, {}))

    making.publish(partial, output)

    assert artifacts.read_manifest(output, kind="datastore")
    assert not partial.exists()
    assert not stale.exists()


def test_units_made_from_other_inputs_wait_in_another_folder(tmp_path):
    output = tmp_path / "results" / "run" / "neighbors" / "base"
    folders = {
        making.partial_folder(output, "1" * 64, made_from)
        for made_from in ({"index": "a"}, {"index": "b"}, {"datastore": "a"}, None)
    }

    assert len(folders) == 4
    assert making.partial_folder(output, "1" * 64, {"index": "a"}) in folders
