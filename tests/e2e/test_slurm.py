"""The workflow on a real SLURM of this machine: same tables, and nothing lost with a job."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from slurm_cluster import SlurmCluster, environment_of, missing_programs
from workflow_project import TINY, Project

pytestmark = pytest.mark.slow

RESULTS = Path("results/tiny")
MODELS = ["base", "narrow", "wide"]
SLURM_LOGS = Path(".snakemake/slurm_logs")
SAID_BY_SLURM = {"cancelled": "CANCELLED AT", "out of time": "DUE TO TIME LIMIT"}
EXPERIMENTS = ("knn_perplexity", "mlp_hurdle")
# What a cluster makes again of a finished run, so that each kind of job is there but few of each:
# a datastore in parts, an index, searches, trainings, tables and figures.
AGAIN = (
    *("datastores/longer", "indexes/longer", "neighbors/longer", "tuned/longer"),
    *("indexes/base/seed0/ivfpq", "neighbors/base/seed0/ivfpq", "tuned/base/seed0/ivfpq"),
    *("mlp_hurdle", "tables", "figures", "report", "explorer"),
)


class SlurmProject(Project):
    """A project whose jobs go to a cluster."""

    def __init__(self, folder: Path, cluster: SlurmCluster) -> None:
        super().__init__(folder)
        self.environment |= cluster.environment

    def command(self, *arguments: str) -> list[str]:
        # The profile as it is, but for how often the cluster is asked.
        often = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "20"]
        start = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm"]
        return [*start, *often, *arguments]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := missing_programs():
        pytest.skip(
            f"no SLURM here ({', '.join(missing)} not found): "
            "apt-get install slurmctld slurmd slurm-client munge"
        )
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def without_models(finished: Project, folder: Path, cluster: SlurmCluster) -> SlurmProject:
    """Return a copy of a finished project that has to train its models again."""
    shutil.copytree(finished.folder, folder, symlinks=True, dirs_exist_ok=True)
    for model in MODELS:
        shutil.rmtree(folder / artifact(model))
    return SlurmProject(folder, cluster)


def without(finished: Project, folder: Path, cluster: SlurmCluster) -> SlurmProject:
    """Return a copy of a finished project that has to make some of it again."""
    shutil.copytree(finished.folder, folder, symlinks=True, dirs_exist_ok=True)
    for name in AGAIN:
        shutil.rmtree(folder / RESULTS / name)
    return SlurmProject(folder, cluster)


def artifact(model: str) -> Path:
    return RESULTS / "models" / model / "seed0"


def log_of(project: Project, model: str) -> str:
    return (project.folder / RESULTS / f"logs/train_language_model/{model}/seed0.log").read_text()


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def started(project: SlurmProject, *arguments: str) -> Iterator[subprocess.Popen]:
    """Start Snakemake beside the test, and end it with the test whatever happens."""
    running = subprocess.Popen(
        project.command(*TINY, *arguments),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


class Training:
    """The SLURM job that trains a model, stopped in its tracks after its first unit."""

    def __init__(self, project: SlurmProject, cluster: SlurmCluster, model: str) -> None:
        self.cluster, self.model = cluster, model
        comment = f"rule_train_language_model_wildcards_{model}_0"
        cluster.wait_until(lambda: self._script(comment) is not None, f"training of {model}", 200)
        self.script = self._script(comment)
        self.job = environment_of(self.script)["SLURM_JOB_ID"]
        self.node = environment_of(self.script)["SLURMD_NODENAME"]
        units = project.folder / RESULTS / "partial/models" / model
        cluster.wait_until(
            lambda: bool(list(units.glob("seed0/*/state*"))), "first unit", 200, every=0.002
        )
        self.script.suspend()
        assert not (project.folder / artifact(model)).exists(), "the stop came after the last unit"

    def _script(self, comment: str) -> psutil.Process | None:
        """Return the process that trains, not the Snakemakes around it."""
        numbers = [
            job for job, what in map(str.split, self.cluster.jobs("%i %k")) if what == comment
        ]
        for process in psutil.process_iter():
            environment = environment_of(process)
            known = belongs(environment, self.cluster) and environment["SLURM_JOB_ID"] in numbers
            if known and runs_a_script(process):
                return process
        return None


def belongs(environment: dict[str, str], cluster: SlurmCluster) -> bool:
    """Return whether a process is part of a job of the cluster."""
    ours = environment.get("SLURM_CONF") == str(cluster.configuration)
    return ours and "SLURM_JOB_ID" in environment


def runs_a_script(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[-1].endswith(".train_language_model.py")
    except (psutil.Error, IndexError):
        return False


def test_a_dag_of_several_experiments_gives_the_tables_of_a_local_run(cluster, finished, tmp_path):
    project = without(finished, tmp_path, cluster)
    (project.folder / "few.yaml").write_text(f"experiments: [{', '.join(EXPERIMENTS)}]\n")

    done = project.snakemake("all", "--configfile", TINY[0].split("=")[1], "few.yaml")

    assert "has been submitted with SLURM jobid" in done.stdout
    assert (project.folder / RESULTS / "report/index.html").is_file()
    tables, expected = (content(p.folder / RESULTS / "tables") for p in (project, finished))
    of_experiments = [name for name in expected if name.startswith(EXPERIMENTS)]
    assert len(of_experiments) == 4
    assert [name for name in of_experiments if tables[name] != expected[name]] == []


@pytest.fixture(scope="module")
def disturbed(cluster, finished, tmp_path_factory):
    """Train three models; cancel one, let one hit its time limit, lose the node of one."""
    project = without_models(finished, tmp_path_factory.mktemp("disturbed"), cluster)
    targets = [str(artifact(model)) for model in MODELS]
    unwarned = "train_language_model:slurm_extra='--nice=0'"  # in the place of --signal
    with started(project, "--set-resources", unwarned, "--", *targets) as running:
        with ThreadPoolExecutor() as at_once:
            trainings = list(at_once.map(partial(Training, project, cluster), MODELS))
        nodes = [training.node for training in trainings]
        # Jobs go where the load is least, so that one of the three has its node for itself.
        alone, one, other = sorted(trainings, key=lambda training: nodes.count(training.node))
        cluster.lose_node(alone.node)
        cluster.run("scancel", one.job)
        cluster.run("scontrol", "update", f"jobid={other.job}", "timelimit=1")
        cluster.wait_until(lambda: cluster.state_of(alone.node).startswith("down"), "loss", 120)
        # SLURM lets a job that it put in the queue again wait for two minutes.
        cluster.run("scontrol", "update", f"jobid={alone.job}", "starttime=now")
        output, _ = running.communicate()
    cluster.start_node(alone.node)
    assert running.returncode == 0, output
    by_fate = {"node lost": alone, "cancelled": one, "out of time": other}
    return project, by_fate


@pytest.mark.parametrize("fate", ["cancelled", "out of time", "node lost"])
def test_a_job_that_did_not_end_by_itself_continues(disturbed, finished, fate):
    project, trainings = disturbed
    training = trainings[fate]
    slurm_log = SLURM_LOGS / f"rule_train_language_model/{training.model}_0/{training.job}.log"

    if fate != "node lost":  # its log went on
        assert SAID_BY_SLURM[fate] in (project.folder / slurm_log).read_text()
    assert "tokens were done before" in log_of(project, training.model)
    models = (content(p.folder / artifact(training.model)) for p in (project, finished))
    assert next(models) == next(models)


def test_slurms_warning_lets_a_job_save_its_state(cluster, finished, tmp_path):
    project = without_models(finished, tmp_path, cluster)
    target = str(artifact("base"))
    with started(project, "--retries", "0", "--", target) as running:
        training = Training(project, cluster, "base")
        # The profile asks for the warning 120 s before the limit; SLURM also wakes what is stopped.
        cluster.run("scontrol", "update", f"jobid={training.job}", "timelimit=3")
        output, _ = running.communicate()

    assert running.returncode != 0
    assert "'FAILED'" in output  # left by itself, not 'TIMEOUT'
    assert "stopped after SIGTERM" in log_of(project, "base")
    project.snakemake(*TINY, "--", target)
    assert "tokens were done before" in log_of(project, "base")
    models = (content(p.folder / target) for p in (project, finished))
    assert next(models) == next(models)


PARTITIONS = """\
partitions:
  main: {max_runtime: 2880, max_mem_mb: 64000, max_threads: 8}
  gpus: {max_runtime: 2880, max_mem_mb: 64000, max_threads: 8, max_gpu: 8}
"""


def test_jobs_that_ask_for_a_gpu_get_it_one_after_the_other(cluster, finished, tmp_path):
    project = without_models(finished, tmp_path, cluster)
    (project.folder / "partitions.yaml").write_text(PARTITIONS)
    options = ["--slurm-partition-config", "partitions.yaml"]
    options += ["--set-resources", "train_language_model:gpu=1"]
    targets = [str(artifact(model)) for model in ("narrow", "wide")]
    form = "--Format=tres-per-job:.20,partition:.12,state:.12"
    asked, at_once, devices = set(), 0, set()
    with started(project, *options, "--", *targets) as run:
        while run.poll() is None:
            listed = cluster.run("squeue", "--noheader", form)
            jobs = [line.split() for line in listed.splitlines()]
            asked |= {(gpus, partition) for gpus, partition, _ in jobs}
            at_once = max(at_once, sum(state == "RUNNING" for *_, state in jobs))
            trained = [environment_of(p) for p in psutil.process_iter() if runs_a_script(p)]
            devices |= {one["CUDA_VISIBLE_DEVICES"] for one in trained if belongs(one, cluster)}
            time.sleep(0.2)

    assert run.returncode == 0
    assert asked == {("gres:gpu:1", "gpus")}
    assert at_once == 1
    assert devices == {"0"}


def test_a_training_on_two_nodes_has_the_loss_curve_of_one_process(cluster, finished, tmp_path):
    project = without_models(finished, tmp_path, cluster)
    resources = ("processes=2", "nodes=2", "tasks=2")
    asked = [f"train_language_model:{resource}" for resource in resources]

    project.snakemake(*TINY, "--set-resources", *asked, "--", str(artifact("base")))

    assert "2 processes share the 2 forward passes" in log_of(project, "base")
    one, two = (
        pd.read_parquet(p.folder / artifact("base") / "training.parquet")
        for p in (finished, project)
    )
    np.testing.assert_allclose(two, one, rtol=1e-4)
