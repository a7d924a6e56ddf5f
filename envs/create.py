"""Make .venv, the environment of the workflow, from the lock, with no compiler.

Called by `make`; it needs the standard library only. Any Python from 3.6 on can read this
file, so that an old one gets a sentence about its version and not a syntax error.
"""

import argparse
import ast
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

MINIMUM_PYTHON = (3, 11)
UV = "uv==0.13.8"  # installs the lock in a quarter of pip's time
PATIENCE = 45  # seconds in which a reachable registry answers one question

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "envs" / "constraints.txt"
REQUIREMENTS = ROOT / "envs" / "requirements.in"
TEST_REQUIREMENTS = ROOT / "envs" / "requirements-test.in"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "locked"  # written last: an environment without it is not whole

# connection-pool, which snakemake needs, is published as source only; it is plain Python.
WHEELS_ONLY = ["--only-binary", ":all:", "--no-binary", "connection-pool"]


def digest() -> str:
    """Return the sha256 of what .venv is made from: the lock, the lists, and its place.

    The place counts because the commands in .venv/bin hold absolute paths.
    """
    total = hashlib.sha256(str(VENV).encode())
    for source in (LOCK, REQUIREMENTS, TEST_REQUIREMENTS):
        total.update(hashlib.sha256(source.read_bytes()).digest())
    return total.hexdigest()


def installed() -> list:
    """Return the names of the requirement files in .venv; none if it is stale or half-made."""
    if not (PYTHON.exists() and STAMP.exists()):
        return []
    words = STAMP.read_text().split()
    return words[1:] if words[:1] == [digest()] else []


def require_python() -> None:
    """Stop if this interpreter is too old."""
    if sys.version_info[:2] < MINIMUM_PYTHON:
        sys.exit(
            "error: Macondo needs Python {}.{} or newer, but {} is Python {}.{}; install a newer "
            "one or name it, as in: make all PYTHON=python3.12".format(
                *MINIMUM_PYTHON, sys.executable, *sys.version_info[:2]
            )
        )


def make_venv() -> None:
    """Put an empty environment into .venv, in place of whatever is there."""
    inside = Path(sys.prefix).resolve() == VENV.resolve()  # started from the one to be replaced
    base = os.path.realpath(sys.executable) if inside else sys.executable
    made = ask(base, "-m", "venv", "--clear", str(VENV))
    if made.returncode != 0:
        sys.exit(
            f"{made.stdout.strip()}\nerror: {base} could not make the environment {VENV}; "
            "on Debian and Ubuntu install the package python3-venv, then run the command again"
        )


def registry_has_uv() -> bool:
    """Return whether the package registry offers uv; stop if no registry answers."""
    question = ["-m", "pip", "install", "--dry-run", "--no-deps", "--retries", "1"]
    try:
        answer = ask(str(PYTHON), *question, "--timeout", "15", *WHEELS_ONLY, UV, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        silent = True
    else:
        silent = answer.returncode != 0 and "connection broken" in answer.stdout
    if silent:
        sys.exit(
            "error: the package registry cannot be reached; check the network, or name a mirror "
            "that can be reached in PIP_INDEX_URL, then run the command again"
        )
    return answer.returncode == 0


def pip_sources() -> list:
    """Return, as options for uv, where pip is set up to look for packages.

    uv reads none of pip's settings. Options of uv's own, set as UV_..., come first.
    """
    options = []
    listed = ask(str(PYTHON), "-m", "pip", "config", "list").stdout.splitlines()
    found = dict(line.split("=", 1) for line in reversed(listed) if "=" in line)  # :env: last
    settings = {key.rpartition(".")[2]: ast.literal_eval(value) for key, value in found.items()}
    for name in ("index-url", "extra-index-url", "find-links"):
        if "UV_" + name.upper().replace("-", "_") not in os.environ:
            for place in settings.get(name, "").split():
                options += ["--" + name, place]
    return [*options, "--index-strategy", "unsafe-best-match"] if options else []


def install(names: list) -> None:
    """Install the packages of these requirement files into .venv at the locked versions.

    The lock is a list of constraints, never of requirements: torch then means the CPU build
    where only that is offered, and elsewhere the CUDA build with the libraries it asks for.
    """
    wanted = ["-c", str(LOCK), *WHEELS_ONLY]
    for name in names:
        wanted += ["-r", str(ROOT / "envs" / name)]
    pip = [str(PYTHON), "-m", "pip", "install"]
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    if registry_has_uv() and ask(*pip, *WHEELS_ONLY, UV).returncode == 0:
        uv = [str(VENV / "bin" / "uv"), "pip", "install", "--python", str(PYTHON)]
        if subprocess.call([*uv, *quiet, "--compile-bytecode", *pip_sources(), *wanted]) == 0:
            return
    print("uv cannot be used here; pip takes over, which takes longer", flush=True)
    if subprocess.call([*pip, *quiet, *wanted]) != 0:
        sys.exit(
            "error: the locked packages could not be installed, for the reason above; check the "
            "network and the free disk space, then run the command again"
        )


def ask(*command: str, timeout: float = 600) -> subprocess.CompletedProcess:
    """Run a command and return it with its output, errors included, as `stdout`."""
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )


def main() -> None:
    """Bring .venv to the state that the lock describes; do nothing if it is there."""
    parser = argparse.ArgumentParser(description="Make .venv from envs/constraints.txt.")
    parser.add_argument("--test", action="store_true", help="with the tools of tests and checks")
    names = [REQUIREMENTS.name]
    if parser.parse_args().test:
        names.append(TEST_REQUIREMENTS.name)
    present = installed()
    if set(names) <= set(present):
        print("environment: .venv is as locked")
        return

    require_python()
    started = time.monotonic()
    if not present:
        print(f"environment: making .venv with Python {sys.version.split()[0]}", flush=True)
        make_venv()
    elif STAMP.exists():
        STAMP.unlink()
    print(f"environment: installing {' and '.join(names)} at the locked versions", flush=True)
    install(names)
    STAMP.write_text("\n".join([digest(), *names]) + "\n")
    print(f"environment: ready after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
