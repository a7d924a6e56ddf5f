"""What docs/extending.md says, done: a corpus, a model and an experiment are added as it tells."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from documents import extending_blocks
from workflow_project import ROOT, TINY

BLOCKS = extending_blocks()
NAME = "frequent_values"


def test_a_folder_of_text_becomes_a_corpus(project):
    (project.folder / "corpus.yaml").write_text(BLOCKS["corpus.yaml"])
    text = project.folder / "my-text"
    text.mkdir()
    for split in ("train", "validation", "test"):
        (text / f"{split}.txt").write_text("one two three\n" * 2000 + "\nfour five\n")
    made = "results/cpu-mine/corpora/mine/text"

    project.snakemake(made, "--configfile", "corpus.yaml")
    jobs = project.jobs("knn_perplexity", "--configfile", "corpus.yaml")

    manifest = json.loads((project.folder / made / "manifest.json").read_text())
    assert {manifest["contents"][split]["documents"] for split in ("train", "test")} == {2}
    assert "evaluate_knn_perplexity" in jobs
    assert "build_corpus" not in jobs


def test_a_model_of_another_size_takes_the_place_of_base(project):
    (project.folder / "model.yaml").write_text(BLOCKS["model.yaml"])

    output = project.snakemake("--dry-run", "knn_perplexity", "--configfile", "model.yaml").stdout

    assert "results/deep/datastores/deep/seed0" in output
    assert "results/deep/datastores/base/seed0" not in output


def test_a_training_starts_from_the_weights_of_another_model(project):
    (project.folder / "trained_on.yaml").write_text(BLOCKS["trained_on.yaml"])
    started = "results/cpu-gazetteer/models/further/seed0"

    command = ["--dry-run", started, "--configfile", "trained_on.yaml"]
    inputs = project.snakemake(*command).stdout.replace("\n", " ").split("input: ")

    of = {job.split("output: ")[1].split()[0]: job.split("output: ")[0] for job in inputs[1:]}
    assert "results/cpu-gazetteer/models/base/seed0" in of[started]
    assert "models/" not in of["results/cpu-gazetteer/models/base/seed0"]


def test_the_fused_engine_needs_no_datastore_and_runs_in_parts(project):
    (project.folder / "fused.yaml").write_text(BLOCKS["fused.yaml"])

    command = ["--dry-run", "knn_perplexity", "--configfile", "fused.yaml"]
    output = project.snakemake(*command).stdout

    assert "results/fused/parts/neighbors/base/seed0/fused/gazetteer/test/part3" in output
    assert "rule build_datastore" not in output
    assert "rule search_part" not in output


def test_an_lm_of_one_corpus_is_scored_on_another_with_a_datastore_of_it(project):
    (project.folder / "second_corpus.yaml").write_text(BLOCKS["second_corpus.yaml"])
    root = "results/second-corpus"

    output = project.snakemake(
        "--dry-run", "knn_perplexity", "--configfile", "second_corpus.yaml"
    ).stdout

    assert f"tokens: {root}/corpora/gazetteer/tokens/own" not in output
    for folder in ("corpora/gazetteer/tokens/own", "corpora/other/tokens/own", "models/base/seed0"):
        assert f"{root}/{folder}" in output
    assert f"{root}/queries/base/seed0/other/test" in output
    assert f"{root}/neighbors/base/seed0/exact/other/test" in output


def test_a_pretrained_model_learns_its_own_town(project):
    (project.folder / "pretrained.yaml").write_text(BLOCKS["pretrained.yaml"])

    output = project.snakemake(
        "--dry-run", "overspecification", "--configfile", "pretrained.yaml"
    ).stdout

    assert "results/cpu-gazetteer/macondo/neo/seed2" in output
    assert "results/cpu-gazetteer/overspecification/neo/seed2" in output
    assert "train_language_model" not in output


@pytest.fixture
def extended(copied):
    """Return the finished project with the example's files in it; no other file is edited."""
    folder = copied.folder
    (folder / "workflow").unlink()
    for name in ("workflow", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    for name, text in BLOCKS.items():
        if NAME in name:
            assert not (folder / name).exists()
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
    return copied


def pytest_in(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", *arguments]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    return done.stdout


def test_the_example_experiment_takes_few_files_and_few_lines():
    files = [text for name, text in BLOCKS.items() if NAME in name]

    assert len(files) <= 7
    assert sum(len(text.splitlines()) for text in files) <= 120


def test_the_example_experiment_runs_and_is_in_its_place(extended):
    folder = extended.folder

    jobs = extended.jobs(*TINY, "all")
    extended.snakemake(*TINY, "all")
    report = (folder / "results/tiny/report/index.html").read_text()
    table = pd.read_csv(folder / f"results/tiny/tables/{NAME}.csv")
    checks = pytest_in(folder, "tests/test_layout.py", f"tests/unit/experiments/{NAME}")
    (folder / f"workflow/experiments/{NAME}/caption.rst").unlink()
    without_caption = extended.snakemake("--dry-run", *TINY, "all", check=False)

    assert {f"evaluate_{NAME}", "plot", "claims", "report"} <= jobs
    assert not [job for job in jobs if job.startswith(("train_", "build_", "search_", "finetune_"))]
    assert list(table["setting"]) == ["1 tokens", "10 tokens", "100 tokens"]
    assert 0 < table["value"].iloc[0] < table["value"].iloc[1] < table["value"].iloc[2] < 1
    assert (folder / f"results/tiny/figures/{NAME}.svg").stat().st_size > 0
    assert "How much of a datastore do the most frequent tokens fill?" in report
    assert "The share of the entries of the datastore base" in report
    assert "test_frequent_values.py::test_the_most_frequent_values_are_counted" in checks
    assert "FAILED" not in checks
    assert without_caption.returncode != 0
    assert f"the experiment {NAME} has no workflow/experiments/{NAME}/caption.rst" in (
        without_caption.stdout
    )


def test_a_hundred_experiments_are_planned_in_seconds(project):
    """Copies of a trivial one, each in a folder of its own: a dry run stays under 10 s."""
    for part in ("workflow", "scripts"):
        (project.folder / part).unlink()
        shutil.copytree(ROOT / part, project.folder / part)
    for number in range(100):
        for name, text in BLOCKS.items():
            if NAME in name and not name.startswith("tests"):
                copy = project.folder / name.replace(NAME, f"{NAME}_{number}")
                copy.parent.mkdir(exist_ok=True)
                copy.write_text(text.replace(NAME, f"{NAME}_{number}"))
    project.jobs(f"{NAME}_0")  # compiles modules

    started = time.monotonic()
    output = project.snakemake("--dry-run", "--quiet", "all").stdout
    seconds = time.monotonic() - started

    assert f"evaluate_{NAME}_99" in output
    assert seconds < 10 * slowness()


def slowness() -> float:
    """Return how much slower this machine is now than the one that the bound was set on."""
    started = time.perf_counter()
    sum(i * i for i in range(5_000_000))
    return max(1.0, (time.perf_counter() - started) / 0.5)
