"""The plan of a run: jobs, bytes and hours of every rule of the dry run; what exceeds limits."""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from knnlm.plan.needs import Machine, Settings, seconds
from knnlm.plan.resources import need_of
from knnlm.runtime.artifacts import atomic_path

HEAD = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$", re.MULTILINE)
FIELD = re.compile(r"^ {4}(\w+): (.*)$", re.MULTILINE)
PAIR = re.compile(r"(\w+)=([^,]*)")
OPTIONS = ("--dry-run", "--forceall", "--nolock", "--cores", "100000")  # so many as all ask for
GB = 1e9
SUMMED = ("jobs", "disk_gb", "flops", "hours")  # over the jobs of a rule; of the others the largest
# What no job may exceed: a column, a limit, of which so much is one in the column, and the words.
CHECKS = (
    ("memory_gb", "mem_mb", 1e3, "needs {:,.1f} GB of memory, not {:,.1f}"),
    ("gpu_memory_gb", "gpu_mb", 1e3, "needs {:,.1f} GB of memory of a GPU, not {:,.1f}"),
    ("longest_hours", "runtime", 60, "takes {:,.1f} h, not {:,.1f}: {} retries go on"),
    ("gpu", "gpu", 1, "asks for {:g} GPUs, not {:g}"),
)


class Job(NamedTuple):
    """One job of the dry run."""

    rule: str
    wildcards: Mapping[str, str]
    threads: int
    printed: Mapping[str, str]  # all that Snakemake says of it, such as resources and benchmark


def make_plan(
    output: Path,
    config: Settings,
    *,
    snakefile: Path,
    hardware: Mapping[str, Machine],
    resources: Mapping[str, Any],
    asked: Mapping[str, int],
) -> str:
    """Write the plan of a run as CSV and return it as text.

    `resources` name the kind of `hardware`, and limits where they are not those of the machine,
    such as limit_mem_mb; `asked` are GPUs of a job of a rule, where a profile asks for several.

    Raises:
        ValueError: if there is no such hardware.
    """
    kind = resources["hardware"]
    if kind not in hardware:
        raise ValueError(f"expected hardware among {', '.join(hardware)}, got {kind!r}")
    limits = {name[6:]: most for name, most in resources.items() if name.startswith("limit_")}
    table = plan(config, dry_run(snakefile, config), hardware[kind], asked)
    with atomic_path(output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
    head = f"limits of {'the profile' if limits else kind}:"
    return "\n".join([as_text(table), head, *exceeded(table, {**hardware[kind], **limits})])


def dry_run(snakefile: Path, config: Settings) -> list[Job]:
    """Return all jobs of a run.

    Raises:
        RuntimeError: with what Snakemake says, if it refuses.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as settings:
        json.dump(config, settings)
        settings.flush()
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *OPTIONS]
        command += ["--configfile", settings.name, "--", "all"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the dry run failed:\n{done.stdout}\n{done.stderr}")
    return read_jobs(done.stdout + done.stderr)


def read_jobs(printed: str) -> list[Job]:
    """Return the jobs of a dry run's text; targets, which make nothing, are left out.

    Raises:
        ValueError: if there is none: Snakemake prints otherwise than this module expects.
    """
    parts, jobs = HEAD.split(printed)[1:], []  # a rule, its text, a rule, its text, and so on
    for rule, text in zip(parts[::2], parts[1::2], strict=True):
        fields = dict(FIELD.findall(text))
        if "output" in fields:
            wildcards = dict(PAIR.findall(fields.get("wildcards", "")))
            jobs.append(Job(rule, wildcards, int(fields.get("threads", 1)), fields))
    if not jobs:
        raise ValueError(f"expected the text of a dry run with jobs, got:\n{printed[:2000]}")
    return jobs


def plan(
    config: Settings, jobs: Sequence[Job], machine: Machine, asked: Mapping[str, int]
) -> pd.DataFrame:
    """Return a row for each rule and a total: sums over its jobs, or the largest of them."""
    rows = []
    for job in jobs:
        need, gpus = need_of(config, job.rule, job.wildcards), asked.get(job.rule, 1)
        hours = seconds(machine, need, threads=job.threads, gpus=gpus) / 3600
        on_gpu, memory = need.on_gpu(config), need.process_memory(config)
        row = {"rule": job.rule, "jobs": 1, "threads": job.threads}
        row |= {"gpu": (gpus if need.shared else 1) * on_gpu, "memory_gb": memory / GB}
        row |= {"gpu_memory_gb": need.gpu_memory * on_gpu / GB, "disk_gb": need.disk / GB}
        row |= {"flops": need.flops, "hours": hours, "longest_hours": hours}
        rows.append(row | {"unknown": need.unknown})
    table = pd.DataFrame(rows)
    how = {name: "sum" if name in SUMMED else "max" for name in table.columns.drop("rule")}
    how["unknown"] = lambda reasons: "; ".join(sorted({*reasons} - {""}))
    rules = table.groupby("rule", sort=False).agg(how).reset_index()
    total = rules.agg(how).to_dict() | {"rule": "total", "unknown": ""}
    return pd.concat([rules, pd.DataFrame([total])], ignore_index=True)


def as_text(table: pd.DataFrame) -> str:
    """Return the table in lines of equal columns, and a line for each rule of unknown needs."""
    shown = table.drop(columns="unknown").assign(flops=table["flops"].map("{:.2g}".format))
    unknown = table.loc[table["unknown"] != "", ["rule", "unknown"]].itertuples(index=False)
    notes = [f"{rule} asks for the default: {reason}" for rule, reason in unknown]
    return "\n".join([shown.to_string(index=False, float_format="{:,.2f}".format), *notes, ""])


def exceeded(table: pd.DataFrame, limits: Mapping[str, float]) -> list[str]:
    """Return what does not fit the limits, a line each, or one line that says all does."""
    found, rules = [], table.iloc[:-1].set_index("rule")
    for column, name, unit, words in CHECKS:
        limit = limits.get(name, math.inf) / unit
        for rule, asked in rules.loc[rules[column] > limit, column].items():
            retries = math.ceil(asked / limit) - 1 if limit else 0
            found.append(f"  {rule} {words.format(asked, limit, retries)}")
    kept, limit = table["disk_gb"].iloc[-1], limits["disk_mb"] / 1e3
    if kept > limit:
        found.append(f"  all artifacts need {kept:,.1f} GB of disk, not {limit:,.1f}")
    return found or ["  nothing exceeds them"]
