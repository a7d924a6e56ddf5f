"""What docs/extending.md says, done: a corpus, a model and an experiment are added as it tells."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pandas as pd
import pytest
from workflow_project import ROOT, TINY

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"^( *)`([\w./-]+)`\n\n\1```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
BLOCKS = {name: dedent(text) for _, name, text in BLOCK.findall(PAGE)}
CHANGED = {"config.yaml", "workflow/schemas/config.schema.yaml", "README.md", "Snakefile"}
OVERLAYS = {"corpus.yaml", "model.yaml", "pretrained.yaml"}


def test_a_folder_of_text_becomes_a_corpus(project):
    (project.folder / "corpus.yaml").write_text(BLOCKS["corpus.yaml"])
    text = project.folder / "my-text"
    text.mkdir()
    for split in ("train", "validation", "test"):
        (text / f"{split}.txt").write_text("one two three\n" * 40 + "\nfour five\n")
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


def test_the_fused_engine_needs_no_datastore_and_runs_in_parts(project):
    (project.folder / "fused.yaml").write_text(BLOCKS["fused.yaml"])

    command = ["--dry-run", "knn_perplexity", "--configfile", "fused.yaml"]
    output = project.snakemake(*command).stdout

    assert "results/fused/parts/neighbors/base/seed0/fused/test/part3" in output
    assert "rule build_datastore" not in output
    assert "rule search_part" not in output


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
    """Return the finished project with the example's files in it."""
    folder = copied.folder
    for name in ("Snakefile", "config.yaml", "workflow"):
        (folder / name).unlink()
    for name in ("workflow", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    for name in ("Snakefile", "config.yaml", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name, text in BLOCKS.items():
        if name not in CHANGED | OVERLAYS:
            assert not (folder / name).exists()
            (folder / name).write_text(text)
    settings = indent(BLOCKS["workflow/schemas/config.schema.yaml"], "  ")
    edit(folder / "config.yaml", "\nscales:\n", before=BLOCKS["config.yaml"])
    edit(folder / "workflow/schemas/config.schema.yaml", "\nproperties:\n", after=settings)
    edit(folder / "README.md", "\n\nEvery table is tidy", before="\n" + BLOCKS["README.md"].strip())
    edit(folder / "Snakefile", "\n\n\nrule experiments:", before="\n" + BLOCKS["Snakefile"].strip())
    edit(folder / "config.yaml", "\n  - conversational\n", after="  - frequent_values\n")
    edit(
        folder / "workflow/schemas/config.schema.yaml",
        "mlp_hurdle, conversational]}",
        before="frequent_values, ",
    )
    return copied


def edit(path: Path, place: str, *, before: str = "", after: str = "") -> None:
    text = path.read_text()
    assert text.count(place) == 1, f"{path.name} has no single place {place!r}"
    path.write_text(text.replace(place, before + place + after))


def pytest_in(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", *arguments]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    return done.stdout


def test_the_example_experiment_runs_and_is_in_its_place(extended):
    folder = extended.folder

    extended.snakemake(*TINY, "all")
    report = (folder / "results/tiny/report/index.html").read_text()
    table = pd.read_csv(folder / "results/tiny/tables/frequent_values.csv")
    checks = pytest_in(folder, "tests/test_layout.py", "tests/unit/test_frequent_values.py")
    (folder / "workflow/report/frequent_values.rst").unlink()
    checks_without_caption = pytest_in(folder, "tests/test_layout.py", "-k", "has_every_part")

    assert list(table["setting"]) == ["1 tokens", "10 tokens", "100 tokens"]
    assert 0 < table["value"].iloc[0] < table["value"].iloc[1] < table["value"].iloc[2] < 1
    assert (folder / "results/tiny/figures/frequent_values.svg").stat().st_size > 0
    assert "How much of a datastore do the most frequent tokens fill?" in report
    assert "The share of the datastore's entries" in report
    assert "frequent_values] PASSED" in checks
    assert "test_frequent_values.py::test_the_most_frequent_values_are_counted" in checks
    assert "FAILED" not in checks
    assert "one more item: 'workflow/report/frequent_values.rst'" in checks_without_caption
