"""The plan of a run: jobs, bytes, FLOPs and hours of every rule, and what exceeds the limits."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from knnlm.plan.dag import Job, dry_run
from knnlm.plan.needs import Config, Machine
from knnlm.plan.resources import need_of
from knnlm.runtime.artifacts import atomic_path, save_json

GB = 1e9
SUMMED = ("jobs", "disk_gb", "flops", "hours")  # over the jobs of a rule; of the others the largest


def make_plan(
    output: Path,
    config: Config,
    snakefile: Path,
    target: str,
    machine: Machine,
    limits: Mapping[str, float],
    asked: Mapping[str, int],
) -> str:
    """Write the plan of a target as CSV and return it as text.

    Limits (mem_mb, gpu_mb, disk_mb, gpu, and runtime in minutes) are those of the machine where
    none is given; `asked` are GPUs of a job of a rule, where a profile asks for several.
    """
    settings = output.with_suffix(".settings.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    save_json(settings, config)
    try:
        jobs = dry_run(snakefile, settings, target)
    finally:
        settings.unlink()
    planned = plan(config, jobs, machine, asked)
    table = by_rule(planned)
    with atomic_path(output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
    return "\n".join([as_text(table), *exceeded(planned, machine, limits)])


def plan(
    config: Config, jobs: Sequence[Job], machine: Machine, asked: Mapping[str, int]
) -> pd.DataFrame:
    """Return a row for each job: what it needs, its hours, and why that is not known."""
    rows = []
    for job in jobs:
        need, gpus = need_of(config, job.rule, job.wildcards), asked.get(job.rule, 1)
        hours = machine.seconds(need, threads=job.threads, gpus=gpus) / 3600
        on_gpu, memory = need.on_gpu(config), need.process_memory(config)
        row = {"job": job.name, "rule": job.rule, "jobs": 1, "threads": job.threads}
        row |= {"gpu": (gpus if need.shared else 1) * on_gpu, "memory_gb": memory / GB}
        row |= {"gpu_memory_gb": need.gpu_memory * on_gpu / GB, "disk_gb": need.disk / GB}
        row |= {"flops": need.flops, "hours": hours, "longest_hours": hours}
        rows.append(row | {"unknown": need.unknown})
    return pd.DataFrame(rows)


def by_rule(planned: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each rule and a total: sums over its jobs, or the largest of them."""
    table = planned.drop(columns="job")
    how = {name: "sum" if name in SUMMED else "max" for name in table.columns.drop("rule")}
    how["unknown"] = lambda reasons: "; ".join(sorted({*reasons} - {""}))
    rules = table.groupby("rule", sort=False).agg(how).reset_index()
    total = pd.DataFrame([rules.agg(how).to_dict() | {"rule": "total", "unknown": ""}])
    return pd.concat([rules, total], ignore_index=True)


def as_text(table: pd.DataFrame) -> str:
    """Return the table in lines of equal columns, and a line for each rule of unknown needs."""
    shown = table.drop(columns="unknown").astype({"flops": str})
    shown["flops"] = [f"{value:.2g}" for value in table["flops"]]
    unknown = table.loc[table["unknown"] != "", ["rule", "unknown"]].itertuples(index=False)
    notes = [f"{rule} asks for the default: {reason}" for rule, reason in unknown]
    return "\n".join([shown.to_string(index=False, float_format="{:,.2f}".format), *notes, ""])


def exceeded(planned: pd.DataFrame, machine: Machine, limits: Mapping[str, float]) -> list[str]:
    """Return what does not fit the limits, a line each, or one line that says all does."""
    gb = {"memory_gb": limits.get("mem_mb", machine.memory / 1e6) / 1e3}
    gb["gpu_memory_gb"] = limits.get("gpu_mb", machine.gpu_memory / 1e6) / 1e3 or math.inf
    disk, kept = limits.get("disk_mb", machine.disk / 1e6) / 1e3, planned["disk_gb"].sum()
    hours, gpus = limits.get("runtime", math.inf) / 60, limits.get("gpu", machine.gpus)
    found = []
    for _, jobs in planned.groupby("rule", sort=False):
        first = jobs.loc[jobs["hours"].idxmax()]
        for column, limit in gb.items():
            job = jobs.loc[jobs[column].idxmax()]
            if job[column] > limit:
                what = column.removesuffix("_gb").replace("gpu_memory", "memory of a GPU")
                found.append(f"{job.job} needs {job[column]:,.1f} GB of {what}, not {limit:,.1f}")
        if first.hours > hours:
            times = math.ceil(first.hours / hours) - 1
            found.append(
                f"{first.job} takes {first.hours:,.1f} h, not {hours:,.1f}: {times} retries go on"
            )
        if jobs["gpu"].max() > gpus:
            found.append(f"{first.rule} asks for {jobs['gpu'].max()} GPUs, not {gpus:g}")
    if kept > disk:
        found.append(f"all artifacts need {kept:,.1f} GB of disk, not {disk:,.1f}")
    head = f"limits of {'the profile' if limits else machine.name}: "
    return [head + ("exceeded by" if found else "nothing exceeds them"), *(f"  {f}" for f in found)]
