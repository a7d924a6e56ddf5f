"""One undisturbed run of the whole workflow at tiny sizes, shared by every test here."""

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, Project

TINY = ["--configfile", str(ROOT / "tests" / "tiny.yaml")]


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
    project = Project.__new__(Project)
    project.folder = tmp_path
    project.environment = finished.environment
    (tmp_path / "scripts").unlink()
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return project
