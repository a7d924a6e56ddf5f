"""Verification of a small results folder: what is altered, missing, foreign or of other origin."""

import json

import numpy as np
import pytest

from knnlm.runtime import artifacts, verification
from knnlm.runtime.artifacts import ArtifactError


def make(folder, *, kind, made_from, numbers):
    folder.mkdir(parents=True)
    artifacts.save_array(folder / "numbers.npy", np.arange(numbers))
    artifacts.write_manifest(
        folder, kind=kind, settings={"n": numbers}, made_from=made_from, contents={"n": numbers}
    )
    return artifacts.identity(folder, kind=kind)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A model, a datastore made from it, and a table in the record."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "tiny"
    model = make(folder / "models/base", kind="model", made_from={}, numbers=5)
    make(folder / "datastores/base", kind="datastore", made_from={"model": model}, numbers=9)
    (folder / "tables").mkdir()
    (folder / "tables/knn.csv").write_text("value\n1.5\n")
    record(folder)
    return folder.relative_to(tmp_path)


def record(folder):
    relative = folder.relative_to(folder.parents[1]) / "tables/knn.csv"
    verification.record_checksums(folder / "tables/checksums.json", [relative])


def problems(results):
    return verification.verify(results).problems


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_whole_folder_has_no_problem_and_every_file_is_counted(results):
    found = verification.verify(results)

    assert found.problems == []
    assert (found.artifacts, found.files, found.recorded) == (2, 4, True)
    assert verification.report_verification(results).endswith("every byte is what was written")


def test_every_single_flipped_byte_is_found_and_its_artifact_named(results):
    owners = {
        results / "models/base/numbers.npy": results / "models/base",
        results / "models/base/manifest.json": results / "models/base",
        results / "tables/knn.csv": results / "tables/knn.csv",
        results / "tables/checksums.json": None,  # found, though it may blame the table
    }
    for path, owner in owners.items():
        whole = path.read_bytes()
        for at in range(len(whole)):
            flip(path, at)
            found = problems(results)
            assert found, f"byte {at} of {path} was flipped and nobody saw it"
            assert owner is None or owner in {problem.rebuild for problem in found}
            path.write_bytes(whole)
    assert problems(results) == []


def test_a_missing_a_shorter_and_a_foreign_file_are_named(results):
    (results / "models/base/numbers.npy").unlink()
    (results / "datastores/base/numbers.npy").write_bytes(b"short")
    (results / "datastores/base/extra.npy").write_bytes(b"")

    text = " | ".join(problem.message for problem in problems(results))

    assert "models/base/numbers.npy is missing" in text
    assert "to have 200 bytes, got 5" in text
    assert "extra.npy is in no manifest" in text


def test_a_datastore_of_another_model_is_to_be_rebuilt(results):
    for file in (results / "models/base").iterdir():
        file.unlink()
    (results / "models/base").rmdir()
    make(results / "models/base", kind="model", made_from={}, numbers=6)

    (problem,) = problems(results)

    assert "datastores/base was made from another model" in problem.message
    assert problem.rebuild == results / "datastores/base"


def test_a_manifest_that_was_edited_in_good_form_is_found(results):
    path = results / "models/base/manifest.json"
    manifest = json.loads(path.read_text())
    artifacts.save_json(path, manifest | {"contents": {"n": 7}})

    assert "manifest.json is not what was written" in problems(results)[0].message


def test_units_in_progress_and_logs_are_not_checked(results):
    for name in ("partial", "logs"):
        make(results / name / "x", kind="model", made_from={"model": "gone"}, numbers=3)
        flip(results / name / "x/numbers.npy", -1)

    assert problems(results) == []


def test_what_neither_a_manifest_nor_the_record_lists_is_named(results):
    (results / "tables/plan.csv").write_text("rule,jobs\n")
    (results / "logs").mkdir()
    (results / "logs/all.log").write_text("done\n")

    found = verification.verify(results)

    assert found.unlisted == [results / "tables/plan.csv"]
    assert found.problems == []
    text = verification.describe(found, results)
    assert f"not checked, in no record (`all` writes it): {results}/tables/plan.csv" in text


def test_the_report_says_what_to_remove(results):
    flip(results / "models/base/numbers.npy", -1)

    with pytest.raises(
        ArtifactError, match=r"rm -rf results/tiny/models/base\n.*command that made"
    ):
        verification.report_verification(results)


@pytest.mark.parametrize("made", ["", "logs"])  # `verify` itself leaves a log
def test_a_run_of_which_nothing_is_there_is_an_error(made, tmp_path):
    (tmp_path / "typo" / made).mkdir(parents=True)

    with pytest.raises(FileNotFoundError, match="run snakemake first"):
        verification.verify(tmp_path / "typo")
    with pytest.raises(FileNotFoundError, match="run snakemake first"):
        verification.verify(tmp_path / "nothing")
