"""Verification of a small results folder: what is altered, missing, foreign or of other origin."""

import json
import shutil
import subprocess

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
    """A model, a datastore made from it, a tuned point, a table and its copy, all recorded."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "tiny"
    model = make(folder / "models/base", kind="model", made_from={}, numbers=5)
    make(folder / "datastores/base", kind="datastore", made_from={"model": model}, numbers=9)
    for name in ("tables/knn.csv", "report/tables/knn.csv", "tuned/base/seed0/exact/letters.json"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("value\n1.5\n")
    (folder / "report/tables/.snakemake_timestamp").touch()
    verification.record_checksums(folder / verification.RECORD)
    return folder.relative_to(tmp_path)


def problems(results):
    return verification.verify(results).problems


def flip(path, at, bit=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def test_a_whole_folder_has_no_problem_and_every_file_is_checked(results):
    found = verification.verify(results)

    assert found.problems == []
    assert found.unlisted == []
    assert len(found.checked) == 7
    assert verification.report_verification(results).endswith("every byte is what was written")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum of GNU")
def test_sha256sum_reads_the_record_and_finds_a_flipped_byte(results):
    check = ["sha256sum", "--check", "--strict", verification.RECORD]
    whole = subprocess.run(check, cwd=results, capture_output=True, text=True)
    flip(results / "datastores/base/numbers.npy", -1)
    altered = subprocess.run(check, cwd=results, capture_output=True, text=True)

    assert whole.returncode == 0
    assert whole.stdout.count(": OK") == 7
    assert altered.returncode != 0
    assert "datastores/base/numbers.npy: FAILED" in altered.stdout


def test_every_single_flipped_byte_is_found_and_what_to_make_again_is_named(results):
    owners = {
        results / "models/base/numbers.npy": results / "models/base",
        results / "models/base/manifest.json": results / "models/base",
        results / "tables/knn.csv": results / "tables/knn.csv",
        results / "report/tables/knn.csv": results / "report/tables",
        results / verification.RECORD: None,  # found, though it may blame a result
    }
    for path, owner in owners.items():
        whole = path.read_bytes()
        for at in range(len(whole)):
            for bit in range(0, 8, 5):
                flip(path, at, bit)
                found = problems(results)
                assert found, f"bit {bit} of byte {at} of {path} was flipped and nobody saw it"
                assert owner is None or owner in {problem.rebuild for problem in found}
                path.write_bytes(whole)
    assert problems(results) == []


def test_artifacts_of_a_run_that_is_not_done_are_checked_against_their_manifests(results):
    (results / verification.RECORD).unlink()
    flip(results / "models/base/numbers.npy", -1)
    (results / "datastores/base/numbers.npy").unlink()

    found = verification.verify(results)

    assert {problem.rebuild for problem in found.problems} == {
        results / "models/base",
        results / "datastores/base",
    }
    assert results / "tables/knn.csv" in found.unlisted


def test_a_missing_and_a_shorter_file_are_named(results):
    (results / "models/base/numbers.npy").unlink()
    (results / "datastores/base/numbers.npy").write_bytes(b"short")

    text = " | ".join(problem.message for problem in problems(results))

    assert "models/base/numbers.npy is missing" in text
    assert "the content of results/tiny/datastores/base/numbers.npy is not what was" in text


def test_a_datastore_of_another_model_is_to_be_rebuilt(results):
    for file in (results / "models/base").iterdir():
        file.unlink()
    (results / "models/base").rmdir()
    make(results / "models/base", kind="model", made_from={}, numbers=6)

    verification.record_checksums(results / verification.RECORD)
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


def test_what_came_after_the_record_is_named_and_a_plan_is_no_result(results):
    (results / "tables/late.csv").write_text("rule,jobs\n")
    (results / "tables/plan.csv").write_text("rule,jobs\n")
    (results / "models/base/extra.npy").write_bytes(b"")

    found = verification.verify(results)

    assert found.unlisted == [results / "models/base/extra.npy", results / "tables/late.csv"]
    assert found.problems == []
    assert f"not yet recorded by `all`: {results}/models" in verification.report_verification(
        results
    )


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
