"""Profiles hold what a machine is, and all of it reaches Snakemake."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from workflow_project import ROOT, TINY, Project

MACHINES = ["gpu", "slurm"]
READ_BACK = """
import json, sys
from snakemake.cli import parse_args
_, found = parse_args(sys.argv[1:])
plain = lambda value: sorted(map(str, value)) if isinstance(value, set) else str(value)
print(json.dumps(vars(found), default=plain))
"""


def profile(name: str) -> dict:
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())


def read_back(project: Project, *arguments: str) -> dict:
    """Return the settings that Snakemake's own parser ends up with."""
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK, *arguments],
        cwd=project.folder,
        env=project.environment | {"PYTHONHASHSEED": "0"},  # sets are printed in one order
        text=True,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", MACHINES)
def test_no_key_of_a_profile_is_lost_to_the_default_profile(project, name):
    asked = ("--profile", f"profiles/{name}")

    together = read_back(project, *asked)

    alone = read_back(project, *asked, "--workflow-profile", "none")
    default = read_back(project)
    nothing = read_back(project, "--workflow-profile", "none")
    for key in (setting.replace("-", "_") for setting in profile(name)):
        assert together[key] == alone[key] != nothing[key]
    for key in (setting.replace("-", "_") for setting in profile("default")):
        assert together[key] == default[key] != nothing[key]


@pytest.mark.parametrize("name", ["default", *MACHINES])
def test_a_profile_redoes_what_a_kill_left_and_holds_no_science(name):
    assert profile(name)["rerun-incomplete"] is True
    assert not profile(name).keys() & {"config", "configfile", "set-threads"}


def test_small_rules_of_the_slurm_profile_are_grouped_by_names_that_exist():
    groups = profile("slurm")["groups"]
    rules = "".join(path.read_text() for path in (ROOT / "workflow").rglob("*.smk"))
    names = set(re.findall(r"^(?:use )?rule (\w+)", rules, re.MULTILINE))

    assert groups.keys() <= names
    assert profile("slurm")["group-components"].keys() <= set(groups.values())


def test_without_slurm_its_profile_stops_before_the_first_job(project):
    programs = project.folder / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "env", "which"):
        (programs / name).symlink_to(shutil.which(name))
    project.environment["PATH"] = str(programs)

    done = project.snakemake("--profile", "profiles/slurm", *TINY, "all", check=False)

    assert done.returncode != 0
    assert "executor slurm needs sbatch, but there is none on PATH" in done.stdout
    assert "has been submitted" not in done.stdout
    assert not (project.folder / "results").exists()
