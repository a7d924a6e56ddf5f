"""Folders are told apart by what their manifests say, and must be what their paths say."""

import pytest

from knnlm.runtime.artifacts import ArtifactError
from knnlm.runtime.making import Target, making
from knnlm.runtime.places import places

BY = ("model", "seed")


def make(root, model="base", seed="0", *, names=None):
    output = root / "queries" / model / f"seed{seed}"
    target = Target(output, "f" * 64, {"model": model, "seed": seed} if names is None else names)
    with making(target, kind="queries", made_from={}, settings={}) as made:
        (made.folder / "file").write_text("content")
    return output


def test_folders_in_any_order_are_known_by_their_names(tmp_path):
    folders = [make(tmp_path, *names) for names in (("wide", "1"), ("base", "0"), ("base", "1"))]

    found = places(folders, kind="queries", by=BY)

    assert found["base", 1] == folders[2]
    assert found["wide", "1"] == folders[0]
    assert len(found) == 3


def test_a_folder_that_is_not_there_is_named_with_those_that_are(tmp_path):
    found = places([make(tmp_path)], kind="queries", by=BY)

    with pytest.raises(ArtifactError, match=r"with model base, seed 3, got \S+/base/seed0"):
        found["base", 3]


def test_a_folder_in_the_place_of_another_is_named(tmp_path):
    folder = make(tmp_path)
    moved = folder.rename(folder.with_name("seed1"))

    with pytest.raises(ArtifactError, match=r"seed1 to be what its path says, .* says seed 0"):
        places([moved], kind="queries", by=BY)


def test_a_manifest_without_a_name_that_tells_folders_apart_is_named(tmp_path):
    folder = make(tmp_path, names={"model": "base"})

    with pytest.raises(ArtifactError, match=r"seed0 to tell its seed, it tells model"):
        places([folder], kind="queries", by=BY)


def test_two_folders_of_the_same_names_are_refused(tmp_path):
    folders = [make(tmp_path / "one"), make(tmp_path / "two")]

    with pytest.raises(ArtifactError, match=r"folders that differ in model, seed, got \S+one"):
        places(folders, kind="queries", by=BY)


def test_an_error_leaves_units_and_no_artifact(tmp_path):
    target = Target(tmp_path / "results/run/queries/base/seed0", "f" * 64, {})
    frame = {"kind": "queries", "made_from": {"model": "1"}, "settings": {}}

    def is_interrupted():
        with making(target, **frame) as made:
            (made.folder / "unit").write_text("finished")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_interrupted()
    with making(target, **frame) as again:
        found = (again.folder / "unit").read_text()

    assert found == "finished"
    assert (target.output / "unit").is_file()
    assert not again.folder.exists()
