"""The whole workflow in a temporary folder: fresh, finished at tiny sizes, or copied for edits."""

import os
import shutil
from pathlib import Path

import pytest
from workflow_project import ROOT, TINY, Project

# One thread, in this process and those that tests start: bytes depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh folder with the whole workflow and no results."""
    return Project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project whose `snakemake all` has run at the sizes of tiny.yaml."""
    project = Project(tmp_path_factory.mktemp("finished"))
    project.snakemake(*TINY, "all")
    return project


@pytest.fixture
def copied(finished: Project, tmp_path: Path) -> Project:
    """Return a copy of the finished project, with a copy of the code that a test may edit."""
    shutil.copytree(finished.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "scripts").unlink()
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return Project(tmp_path)
