"""Kill -9 in the middle of every long step, recover as documented, and get the same bytes."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from workflow_project import TINY, Project

RESULTS = Path("results/tiny")
# Artifact, units that appear in its partial folder, its log.
STEPS = {
    "train": ("models/base/seed0", "state*", "train_language_model/base/seed0.log"),
    "datastore": (
        "datastores/base/seed0",
        "shard-*/manifest.json",
        "build_datastore/base/seed0.log",
    ),
    "search": (
        "neighbors/base/seed0/exact/test",
        "block-*.npz",
        "search_neighbors/base/seed0/exact/test.log",
    ),
}


def kill_after_first_unit(project: Project, target: str, pattern: str) -> None:
    """Start Snakemake, wait for the first published unit, kill every process of it."""
    running = subprocess.Popen(
        project.command(*TINY, target),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    partial = project.folder / RESULTS / "partial"
    artifact = Path(target).relative_to(RESULTS)
    while running.poll() is None and not list((partial / artifact).glob(f"*/{pattern}")):
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_step_continues_and_ends_in_the_same_bytes(finished, tmp_path, step):
    artifact, unit, log = STEPS[step]
    target = str(RESULTS / artifact)
    project = Project(tmp_path)
    kill_after_first_unit(project, target, unit)
    assert not (project.folder / target).exists(), "the kill came after the last unit"

    project.snakemake(*TINY, "--unlock")
    project.snakemake(*TINY, "knn_perplexity")

    done = re.search(r"(\d[\d,]*) of ([\d,]+) .* were done before", read(project, "logs/" + log))
    assert done, "the finished units were done again"
    assert 0 < number(done[1]) < number(done[2])
    for table in ["tables/knn_perplexity.csv", "tables/knn_perplexity_grid.csv"]:
        assert read(project, table) == read(finished, table)


def read(project: Project, name: str) -> str:
    return (project.folder / RESULTS / name).read_text()


def number(text: str) -> int:
    return int(text.replace(",", ""))
