"""The jobs of a run, read from Snakemake's own dry run, so that the plan counts what would run."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

HEAD = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$", re.MULTILINE)
FIELD = re.compile(r"^ {4}(\w+): (.*)$", re.MULTILINE)
OPTIONS = ("--dry-run", "--forceall", "--nolock", "--cores", "100000")  # so many as all ask for


class Job(NamedTuple):
    """One job of the dry run."""

    rule: str
    wildcards: Mapping[str, str]
    threads: int
    resources: Mapping[str, str]
    benchmark: str | None  # file of its time and memory

    @property
    def name(self) -> str:
        """The rule and the values of its wildcards."""
        return "/".join((self.rule, *self.wildcards.values()))


def dry_run(snakefile: Path, settings: Path, target: str) -> list[Job]:
    """Return all jobs of a target, with a file of settings.

    Raises:
        RuntimeError: with what Snakemake says, if it refuses.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *OPTIONS]
    command += ["--configfile", str(settings), "--", target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the dry run of {target} failed:\n{done.stdout}\n{done.stderr}")
    return read_jobs(done.stdout + done.stderr)


def read_jobs(printed: str) -> list[Job]:
    """Return the jobs of a dry run's text; targets, which make nothing, are left out.

    Raises:
        ValueError: if there is none: Snakemake prints otherwise than this module expects.
    """
    parts = HEAD.split(printed)[1:]  # a rule, its text, a rule, its text, and so on
    pairs = zip(parts[::2], parts[1::2], strict=True)
    blocks = [(rule, dict(FIELD.findall(text))) for rule, text in pairs]
    jobs = [_job(rule, fields) for rule, fields in blocks if "output" in fields]
    if not jobs:
        raise ValueError(f"expected the text of a dry run with jobs, got:\n{printed[:2000]}")
    return jobs


def _job(rule: str, fields: Mapping[str, str]) -> Job:
    named = [
        dict(pair.split("=", 1) for pair in fields.get(name, "").split(", ") if pair)
        for name in ("wildcards", "resources")
    ]
    return Job(rule, named[0], int(fields.get("threads", 1)), named[1], fields.get("benchmark"))
