"""Snakemake in a folder of links to the project: no copy of the workflow, no debris in it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ["Snakefile", "config.yaml", "workflow", "scripts", "profiles", "envs", "data"]
TINY = [f"--configfile={ROOT / 'tests' / 'tiny.yaml'}"]
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "default",
}


class Project:
    """A folder in which Snakemake runs the project's workflow on its own results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {**OFFLINE, "XDG_CACHE_HOME": str(folder / ".cache")}
        for name in PARTS:
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a Snakemake call."""
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run Snakemake to its end; its output is text."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done

    def jobs(self, *arguments: str) -> set[str]:
        """Return the names of the rules that a dry run would run."""
        output = self.snakemake("--dry-run", *arguments).stdout
        return {
            line.split()[1].rstrip(":")
            for line in output.splitlines()
            if line.startswith(("rule ", "localrule "))
        }
