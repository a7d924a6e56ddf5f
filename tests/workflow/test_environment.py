"""The environment: the lock says everything, and making it works or says why not."""

import ast
import functools
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ENVS = ROOT / "envs"
CREATE = ENVS / "create.py"
IN_VENV = Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()

# Names that conda-forge and bioconda give to packages of the lock.
CONDA_NAMES = {
    "faiss-gpu": "faiss-cpu",
    "matplotlib-base": "matplotlib",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "snakemake-minimal": "snakemake",
}
USED_WITHOUT_IMPORT = {
    "pyarrow": "what pandas reads and writes Parquet with",
    "snakemake": "the command that runs the workflow",
    "snakemake-executor-plugin-slurm": "the executor of profiles/slurm",
}


def requirements(name: str) -> list[Requirement]:
    lines = (ENVS / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and line.lstrip()[0] != "#"]


def applicable_pins() -> dict[str, Requirement]:
    pins = requirements("constraints.txt")
    return {pin.name: pin for pin in pins if pin.marker is None or pin.marker.evaluate()}


PINS = applicable_pins()
RUN = [requirement.name for requirement in requirements("requirements.in")]
TEST = [requirement.name for requirement in requirements("requirements-test.in")]


# --- the lock ---


@pytest.mark.parametrize("name", RUN + TEST)
def test_each_required_package_is_pinned_exactly(name):
    assert re.fullmatch(r"==[\w.]+", str(PINS[name].specifier))


@pytest.mark.skipif(not IN_VENV, reason="speaks of .venv")
def test_what_is_installed_is_what_is_locked():
    installed = {normalized(d.name): d.version for d in metadata.distributions()}

    assert set(RUN) <= set(installed)
    assert {
        name: version
        for name, version in installed.items()
        if name in PINS and not PINS[name].specifier.contains(version, prereleases=True)
    } == {}


@pytest.mark.skipif(not IN_VENV, reason="speaks of .venv")
def test_the_lock_holds_whatever_the_required_packages_need():
    needed, waiting = set(), [Requirement(name) for name in RUN + TEST]
    while waiting:
        requirement = waiting.pop()
        if requirement.name in needed:
            continue
        needed.add(requirement.name)
        for line in metadata.requires(requirement.name) or []:
            further = Requirement(line)
            if further.marker is None or further.marker.evaluate({"extra": ""}):
                waiting.append(Requirement(normalized(further.name)))

    assert needed - set(PINS) == set()


@pytest.mark.parametrize("file", ["macondo.yaml", "macondo-gpu.yaml"])
def test_conda_gets_the_versions_of_the_lock(file):
    dependencies = yaml.safe_load((ENVS / file).read_text())["dependencies"]
    versions = dict(dependency.split("=") for dependency in dependencies)
    python = versions.pop("python")

    # The conda environments are for Python 3.11, whatever Python runs this test.
    pins = {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in requirements("constraints.txt")
        if pin.marker is None
        or pin.marker.evaluate({"python_full_version": f"{python}.0", "python_version": python})
    }
    assert {CONDA_NAMES.get(name, name): version for name, version in versions.items()} == {
        name: pins[name] for name in RUN
    }


def test_only_the_gpu_environment_has_faiss_and_torch_for_gpus():
    cpu, gpu = (
        set(re.findall(r"- (pytorch-\w+|faiss-\w+)=", (ENVS / file).read_text()))
        for file in ("macondo.yaml", "macondo-gpu.yaml")
    )

    assert (cpu, gpu) == ({"pytorch-cpu", "faiss-cpu"}, {"pytorch-gpu", "faiss-gpu"})


@pytest.mark.parametrize("package", RUN)
def test_each_required_package_is_used(package):
    modules = {
        module
        for module, owners in metadata.packages_distributions().items()
        if package in map(normalized, owners)
    }

    assert package in USED_WITHOUT_IMPORT or modules & imported_modules()


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def imported_modules() -> set[str]:
    modules = set()
    for script in (ROOT / "scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.split(".")[0])
    for rules in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]:
        modules |= set(re.findall(r"^(?:import|from) (\w+)", rules.read_text(), re.MULTILINE))
    return modules


def test_set_up_names_no_host():
    files = [ROOT / "Makefile", ROOT / ".ci" / "run", *ENVS.iterdir()]

    assert [file.name for file in files if file.is_file() and "://" in file.read_text()] == []


# --- making it ---


@pytest.fixture
def project(tmp_path):
    """A copy of what set-up needs, with two tiny packages in the place of the real ones."""
    folder = tmp_path / "project"
    shutil.copytree(ENVS, folder / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "envs" / "requirements.in").write_text("wisdom\n")
    (folder / "envs" / "requirements-test.in").write_text("alchemy\n")
    (folder / "envs" / "constraints.txt").write_text("alchemy==2\nwisdom==1\n")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version in [("wisdom", 1), ("wisdom", 3), ("alchemy", 2)]:
        write_wheel(wheels, name, version)
    return folder


def write_wheel(folder: Path, name: str, version: int) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version}\n")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def call(command: list[str], project: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project, with no registry but the wheels beside it."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "MAKE", "PYTHON"))
    }
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project.parent / "wheels")}
    return subprocess.run(
        command,
        cwd=project,
        env=inherited | {"PIP_CONFIG_FILE": os.devnull} | (settings or offline),
        capture_output=True,
        text=True,
        timeout=120,
    )


def create(project: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return call([sys.executable, "envs/create.py", *options], project, **settings)


def versions_in(project: Path) -> str:
    found = "from importlib.metadata import distributions\n"
    found += "print(*(d.name + d.version for d in distributions()))"
    python = project / ".venv" / "bin" / "python"
    return subprocess.run([python, "-c", found], capture_output=True, text=True).stdout


def test_an_environment_is_made_once_and_completed_for_the_tests(project):
    made = create(project)
    assert (made.returncode, made.stderr) == (0, "")
    assert "wisdom1" in versions_in(project)
    assert "alchemy" not in versions_in(project)

    again = create(project)
    assert again.stdout == "environment: .venv is as locked\n"

    completed = create(project, "--test")
    assert "making" not in completed.stdout
    assert "alchemy2" in versions_in(project)
    assert "wisdom1" in versions_in(project)


def test_a_half_made_environment_is_made_anew(project):
    debris = project / ".venv" / "lib" / "half-a-package"
    debris.mkdir(parents=True)
    (project / ".venv" / "bin").mkdir()
    (project / ".venv" / "bin" / "python").symlink_to("no-longer-there")

    made = create(project)

    assert made.returncode == 0, made.stdout + made.stderr
    assert "wisdom1" in versions_in(project)
    assert not debris.exists()


@pytest.mark.parametrize("change", ["lock", "requirements", "place"])
def test_an_environment_of_another_lock_or_place_is_stale(project, change):
    ask = [sys.executable, "-c", "import sys; sys.path.insert(0, 'envs'); import create as c; "]
    stamp = "c.PYTHON.parent.mkdir(parents=True); c.PYTHON.touch(); "
    stamp += "c.STAMP.write_text(c.digest() + ' requirements.in')"
    assert call([*ask[:2], ask[2] + stamp], project).returncode == 0
    report = [*ask[:2], ask[2] + "print(c.installed())"]
    assert call(report, project).stdout == "['requirements.in']\n"

    if change == "lock":
        (project / "envs" / "constraints.txt").write_text("alchemy==2\nwisdom==3\n")
    elif change == "requirements":
        (project / "envs" / "requirements-test.in").write_text("alchemy\nwisdom\n")
    else:
        project = project.rename(project.parent / "moved")

    assert call(report, project).stdout == "[]\n"


def test_an_unreachable_registry_is_named_with_the_remedy(project):
    closed = "http://127.0.0.1:9/simple"  # the discard port: nothing listens there

    failed = create(project, PIP_INDEX_URL=closed, UV_INDEX_URL=closed)

    assert failed.returncode == 1
    assert failed.stderr == (
        "error: the package registry cannot be reached; check the network, or name a mirror that "
        "can be reached in PIP_INDEX_URL, then run the command again\n"
    )
    assert not (project / ".venv" / "locked").exists()


def test_a_package_that_no_registry_has_is_an_error(project):
    (project / "envs" / "constraints.txt").write_text("alchemy==2\nwisdom==4\n")

    failed = create(project)

    assert failed.returncode == 1
    assert "ERROR: Cannot install wisdom" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: the locked packages could not be")
    assert not (project / ".venv" / "locked").exists()


def test_a_package_that_would_need_a_compiler_is_refused(project):
    wheel = project.parent / "wheels" / "wisdom-1-py3-none-any.whl"
    wheel.unlink()
    with tarfile.open(wheel.with_name("wisdom-1.tar.gz"), "w:gz") as source:
        source.add(project / "Makefile", "wisdom-1/setup.py")

    failed = create(project)

    assert failed.returncode == 1
    assert "building" not in failed.stderr.lower()
    assert failed.stderr.splitlines()[-1].startswith("error: the locked packages could not be")


def test_uv_looks_where_pip_is_set_up_to_look(monkeypatch):
    listed = """:env:.find-links='wheels'
global.cert='certificates'
global.find-links='other-wheels'
user.extra-index-url='first second'
"""
    create = runpy.run_path(str(CREATE))
    pip_sources = create["pip_sources"]
    answer = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setitem(pip_sources.__globals__, "ask", lambda *_: answer)
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.delenv("UV_EXTRA_INDEX_URL", raising=False)
    indexes = ["--extra-index-url", "first", "--extra-index-url", "second"]
    as_pip = ["--index-strategy", "unsafe-best-match"]

    assert pip_sources() == [*indexes, "--find-links", "wheels", *as_pip]
    monkeypatch.setenv("UV_FIND_LINKS", "mine")
    assert pip_sources() == [*indexes, *as_pip]


def test_an_old_python_is_refused_before_anything_is_made(project):
    bin_folder = project.parent / "bin"
    bin_folder.mkdir()
    python = bin_folder / "python3"
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c '\n"
        "import runpy, sys\n"
        'sys.version_info = (3, 9, 18, "final", 0)\n'
        "sys.argv = sys.argv[1:]\n"
        'runpy.run_path(sys.argv[0], run_name="__main__")\n'
        '\' "$@"\n'
    )
    python.chmod(0o755)

    failed = call(["make", "all"], project, PATH=f"{bin_folder}:{os.environ['PATH']}")

    assert failed.returncode != 0
    assert "error: Macondo needs Python 3.11 or newer, but" in failed.stderr
    assert "is Python 3.9; install a newer one or name it, as in: make all PYTHON=" in failed.stderr
    assert not (project / ".venv").exists()


def test_a_missing_python_is_named(project):
    failed = call(["make", "test", "PYTHON=python3.99"], project)

    assert failed.returncode != 0
    assert "error: Macondo needs Python 3.11 or newer, but there is no python3.99" in failed.stderr


def test_an_old_python_can_read_the_check_of_its_version():
    ast.parse(CREATE.read_text(), feature_version=(3, 6))


def test_make_help_lists_every_target(project):
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]

    listed = re.findall(r"^make (\w+) ", call(["make", "help"], project).stdout, re.MULTILINE)

    assert listed == targets.split()
