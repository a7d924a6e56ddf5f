"""The jobs of a run, read from Snakemake's own dry run: names, wildcards, order, requests.

So the plan counts the jobs that would run, whatever the rule files say.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MANY = "100000"  # cores of the dry run: no job gets fewer threads than it asks for
HEAD = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
FIELD = re.compile(r"^ {4}(\w+): (.*)$")


@dataclass(frozen=True)
class Job:
    """One job of the dry run.

    Attributes:
        rule: its rule.
        wildcards: values by name.
        inputs, outputs: files and folders.
        threads: that it asks for.
        resources: values by name, as text.
        benchmark: file that Snakemake writes its time and memory to, if it has one.
    """

    rule: str
    wildcards: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int
    resources: Mapping[str, str]
    benchmark: str | None = None

    @property
    def name(self) -> str:
        """The rule and the values of its wildcards."""
        return "/".join((self.rule, *self.wildcards.values()))


def dry_run(snakefile: Path, settings: Path, target: str) -> str:
    """Return what Snakemake prints of all jobs of a target, finished ones included.

    Args:
        snakefile: of the workflow.
        settings: the merged config of this run, as an overlay.
        target: a rule.

    Raises:
        RuntimeError: with what Snakemake says, if it refuses.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--nolock"]
    command += ["--dry-run", "--forceall", "--cores", MANY, "--configfile", str(settings)]
    done = subprocess.run([*command, "--", target], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the dry run of {target} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


def read_jobs(printed: str) -> list[Job]:
    """Return the jobs of a dry run's text; targets, which make nothing, are left out.

    Raises:
        ValueError: if there is none: Snakemake prints otherwise than this module expects.
    """
    jobs = [_job(rule, fields) for rule, fields in _blocks(printed) if "output" in fields]
    if not jobs:
        raise ValueError(f"expected the text of a dry run with jobs, got:\n{printed[:2000]}")
    return jobs


def _blocks(printed: str) -> Iterator[tuple[str, dict[str, str]]]:
    rule: str | None = None
    fields: dict[str, str] = {}
    for line in [*printed.splitlines(), ""]:
        if rule and (field := FIELD.match(line)):
            fields[field[1]] = field[2]
            continue
        if rule:
            yield rule, fields
        head = HEAD.match(line)
        rule, fields = (head[1] if head else None), {}


def _job(rule: str, fields: Mapping[str, str]) -> Job:
    def pairs(name: str) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in _split(fields.get(name, "")))

    return Job(
        rule=rule,
        wildcards=pairs("wildcards"),
        inputs=_split(fields.get("input", "")),
        outputs=_split(fields.get("output", "")),
        threads=int(fields.get("threads", "1")),
        resources=pairs("resources"),
        benchmark=fields.get("benchmark"),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(", ") if part)


def predecessors(jobs: Sequence[Job]) -> list[list[int]]:
    """Return for each job the numbers of the jobs whose outputs it reads."""
    makers = {output: number for number, job in enumerate(jobs) for output in job.outputs}
    return [sorted({makers[i] for i in job.inputs if i in makers}) for job in jobs]


def in_order(before: Sequence[Sequence[int]]) -> list[int]:
    """Return job numbers such that each comes after those it reads from."""
    order: list[int] = []
    done: set[int] = set()
    stack = list(range(len(before)))[::-1]
    while stack:
        number = stack[-1]
        missing = [one for one in before[number] if one not in done]
        if missing:
            stack += missing
            continue
        stack.pop()
        if number not in done:
            done.add(number)
            order.append(number)
    return order


def sorted_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs such that each comes after those it reads from."""
    return [jobs[number] for number in in_order(predecessors(jobs))]
