"""Stop every long step at random moments, let Snakemake go on, and get the same bytes."""

import os
import shutil
import signal
import subprocess
import time
from fnmatch import fnmatch

import pytest
from faults import RESULTS, STEPS, Killer, contents, copy_results
from workflow_project import TINY, Project

SEED = 20_240_611  # of the moments
OF_TWO_UNITS = "train_index"  # asked to stop after the first, it finishes: the second is in hand
# Free bytes at which some units fit and not all: files of the result, and times their size. The
# state of a training is 3 times its weights, and the next one is written beside the last; so is
# what the fused engine has found so far. Units of a projection are smaller than what Snakemake
# itself writes: there is no room at which only they do not fit.
ROOM = {
    "train_language_model": ("model.safetensors", 4.5),
    "finetune_macondo": ("end.safetensors", 4.5),
    "build_datastore_part": ("*", 0.5),
    "encode_index_part": ("*", 1.2),
    "search_part": ("*", 0.5),
    "search_fused_part": ("*", 1.5),
    "search_masks": ("*.npz", 0.6),
    "train_mlp_replacement": ("replacement.safetensors", 4.5),
}


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
@pytest.mark.parametrize("step", [step for step in STEPS if step != OF_TWO_UNITS])
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
    for artifact in ("datastores/base/seed0", "neighbors/base/seed0/exact"):
        shutil.rmtree(tmp_path / RESULTS / artifact)
    (tmp_path / RESULTS / "tables/knn_perplexity.csv").unlink()
    command = [*TINY, "--", str(RESULTS / "tables/knn_perplexity.csv")]
    running = subprocess.Popen(
        project.command(*command),
        cwd=tmp_path,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    shards = "parts/datastores/base/seed0/part*/*/shard-*/manifest.json"
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
    logs = (tmp_path / RESULTS / "logs/build_datastore_part/base/seed0").glob("*.log")
    assert any("tokens were done before" in log.read_text() for log in logs)
    table = RESULTS / "tables/knn_perplexity.csv"
    assert (tmp_path / table).read_bytes() == (finished.folder / table).read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A file system whose size can be changed: a function of bytes beyond what is used."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "none", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("a small file system cannot be mounted here: it takes root on Linux")

    def resize(free: int) -> None:
        size = shutil.disk_usage(folder).used + free
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("step", ROOM)
def test_a_full_disk_is_named_and_the_step_goes_on_when_there_is_room(finished, small_disk, step):
    folder, resize = small_disk
    artifact = RESULTS / STEPS[step].artifact
    project = Project(copy_results(finished, folder))
    if not (folder / artifact).exists():  # a part is removed as soon as it is joined
        project.snakemake(*TINY, "--", str(artifact))
    expected = contents(folder / artifact)
    shutil.rmtree(folder / artifact)
    pattern, times = ROOM[step]
    size = sum(len(content) for name, content in expected.items() if fnmatch(name, pattern))
    resize(int(times * size))

    full = project.snakemake(*TINY, "--", str(artifact), check=False)
    resize(200 << 20)
    project.snakemake(*TINY, "--", str(artifact))

    assert full.returncode != 0
    assert "the disk is full while writing" in full.stdout
    assert (
        "were done before"
        in (folder / RESULTS / "logs" / step / f"{STEPS[step].log}.log").read_text()
    )
    assert contents(folder / artifact) == expected
