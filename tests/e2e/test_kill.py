"""Stop every long step at random moments, let Snakemake go on, and get the same bytes."""

import os
import signal
import subprocess
import time

import pytest
from faults import RESULTS, STEPS, Killer, copy_results
from workflow_project import TINY, Project

SEED = 20_240_611  # of the moments


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_step_goes_on_and_ends_in_the_same_bytes(finished, tmp_path, step, request):
    kills = request.config.getoption("kills")
    outcome = Killer(finished, tmp_path, step, seed=SEED).run(kills=kills)
    print(f"{step}: {outcome}, seed {SEED}")

    assert outcome.kills == kills, "too few kills came between two units"
    assert not outcome.redone, "published units were made again"
    assert not outcome.altered, "the result has other bytes"


@pytest.mark.slow
@pytest.mark.parametrize("step", ["train_language_model", "build_datastore", "project_on_heads"])
def test_a_step_that_is_asked_to_stop_saves_what_it_has(finished, tmp_path, step):
    outcome = Killer(finished, tmp_path, step, seed=SEED).run(kills=1, by=signal.SIGTERM)

    assert outcome.kills == 1
    assert outcome.stopped >= 1, "the log does not tell that it was stopped"
    assert not outcome.redone
    assert not outcome.altered


@pytest.mark.slow
def test_after_a_kill_of_snakemake_itself_unlock_and_the_same_command_are_enough(
    finished, tmp_path
):
    project = Project(copy_results(finished, tmp_path))
    for artifact in ("datastores/base/seed0", "tables/knn_perplexity.csv"):
        subprocess.run(["rm", "-r", str(tmp_path / RESULTS / artifact)], check=True)
    command = [*TINY, "--", str(RESULTS / "tables/knn_perplexity.csv")]
    running = subprocess.Popen(
        project.command(*command),
        cwd=tmp_path,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    shards = "datastores/base/seed0/*/shard-*/manifest.json"
    while running.poll() is None and not [*(tmp_path / RESULTS / "partial").glob(shards)]:
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / RESULTS / "datastores/base/seed0").exists(), "the kill came too late"

    refused = project.snakemake(*command, check=False)
    project.snakemake(*TINY, "--unlock")
    project.snakemake(*command)

    assert refused.returncode != 0
    assert "--unlock" in refused.stdout, "a stale lock does not say how to clear it"
    log = (tmp_path / RESULTS / "logs/build_datastore/base/seed0.log").read_text()
    assert "tokens were done before" in log
    table = RESULTS / "tables/knn_perplexity.csv"
    assert (tmp_path / table).read_bytes() == (finished.folder / table).read_bytes()
