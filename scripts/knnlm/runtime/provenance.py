"""Provenance: on what, with what and from which commit a run was made.

The record names no user, no host and no folder, so it can be published with the tables.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from knnlm.runtime.artifacts import canonical_json

RECORDED_PACKAGES = (
    "accelerate",
    "datasets",
    "faiss-cpu",
    "faiss-gpu",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "safetensors",
    "scipy",
    "seaborn",
    "snakemake",
    "tokenizers",
    "torch",
    "transformers",
)
SECONDS_FOR_A_TOOL = 20  # a driver that hangs must not hang the run


def environment(*, root: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a run, as JSON values.

    Args:
        root: the project's folder, for its commit.
        config: the merged settings of the run.

    Returns:
        python, platform, packages (version by name, None when absent), git (commit and dirty,
        both None without git), cpu (name and logical cores), gpus (names), threads (the settings
        of the scale) and config_sha256 (of the canonical JSON of the settings).
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "git": git_state(root),
        "cpu": {"name": cpu_name(), "cores": os.cpu_count()},
        "gpus": gpu_names(),
        "threads": dict(config.get("threads", {})),
        "config_sha256": hashlib.sha256(canonical_json(config).encode()).hexdigest(),
    }


def git_state(root: Path) -> dict[str, str | bool | None]:
    """Return the commit of a checkout and whether tracked files differ from it.

    Both are None where there is no git or `root` is not the top of a checkout: a copy that lies
    inside some other repository does not have that repository's commit.
    """
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return {"commit": None, "dirty": None}
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _output("git", "-C", str(root), "rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def cpu_name() -> str:
    """Return the processor's name as the system gives it, or its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    names = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """Return the names of the NVIDIA GPUs, in the driver's order; none without a driver."""
    listed = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [] if listed is None else [line.strip() for line in listed.splitlines() if line.strip()]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """Return what a tool prints, or None if it is absent, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_FOR_A_TOOL, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
