"""The whole workflow in a temporary folder: fresh, finished at tiny sizes, or copied for edits."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from workflow_project import ROOT, TINY, Project

# One thread, in this process and those that tests start: bytes depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a longer run kill each step more often; its counts stand in docs/measurements."""
    parser.addoption("--kills", dest="kills", type=int, default=2, help="SIGKILLs for each step")
    parser.addoption("--flips", type=int, default=2, help="flipped bytes for each kind of file")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh folder with the whole workflow and no results."""
    return Project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project whose `snakemake all` has run at the sizes of tiny.yaml.

    Several workers of pytest share one: the first runs it, the others wait for its lock.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (base / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder, whole = base / "finished", base / "finished.whole"
        folder.mkdir(exist_ok=True)
        project = Project(folder)
        if not whole.exists():
            project.snakemake(*TINY, "all")
            whole.touch()
    return project


@pytest.fixture
def copied(finished: Project, tmp_path: Path) -> Project:
    """Return a copy of the finished project, with a copy of the code that a test may edit."""
    shutil.copytree(finished.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "scripts").unlink()
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return Project(tmp_path)
