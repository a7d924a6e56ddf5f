"""The plan as text: the table of rules, total, critical path, and what exceeds the limits."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from knnlm.plan.dag import dry_run, read_jobs, sorted_jobs
from knnlm.plan.needs import Config
from knnlm.plan.table import GB, HOUR, Cluster, Plan, clusters, read_machines, write_plan
from knnlm.runtime.artifacts import save_json

MINUTE = 60.0
CHAIN = 6  # jobs of the critical path that are named
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def make_plan(
    *,
    output: Path,
    config: Config,
    snakefile: Path,
    this: Path,
    others: Path,
    hardware: str,
    limits: Mapping[str, float | None],
    asked: Mapping[str, int],
    target: str,
    terminal: int,
) -> None:
    """Write the plan of a target as CSV and print it.

    Args:
        output: the CSV.
        config: the merged settings.
        snakefile: of the workflow.
        this: the measured rates of this machine.
        others: data/hardware.yaml.
        hardware: such as "this, h200, 8 x h200"; limits of machines are those of the last.
        limits: mem_mb (of a job), disk_mb (of the run), runtime (minutes of a job) and gpu; None
            is what the last hardware has, and for runtime no limit.
        asked: GPUs of a job of a rule, where the profile asks for several.
        target: the rule that is planned.
        terminal: where the text goes, a file descriptor.
    """
    settings = output.with_suffix(".settings.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    save_json(settings, config)
    try:
        jobs = sorted_jobs(read_jobs(dry_run(snakefile, settings, target)))
    finally:
        settings.unlink()
    plan = Plan(config, jobs, clusters(hardware, read_machines(this, others)), asked)
    given = {name: limit for name, limit in limits.items() if limit is not None}
    table = plan.table()
    write_plan(output, table)
    lines = [*as_text(table), "", *summary(plan), "", *exceeded(plan, given)]
    with open(terminal, "w", encoding="utf-8", closefd=False) as out:
        print("\n".join(lines), file=out)


def as_text(table: pd.DataFrame) -> list[str]:
    """Return the table in lines of equal columns."""
    shown = table.copy()
    shown["flops"] = [with_unit(value) for value in table["flops"]]
    for name in table.columns:
        if name.startswith(("hours", "longest_hours")):
            shown[name] = [hours(value * HOUR) for value in table[name]]
        elif name.endswith("_gb"):
            shown[name] = [f"{value:,.2f}" for value in table[name]]
    shown = shown.rename(columns=lambda name: name.replace("hours", "time"))  # each has its unit
    return shown.to_string(index=False).splitlines()


def with_unit(value: float) -> str:
    """Return a number with a metric prefix."""
    for size, letter in UNITS:
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:.0f}"


def hours(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:,.1f} h"


def summary(plan: Plan) -> Iterator[str]:
    """Yield for each hardware total, critical path and wall time."""
    for cluster in plan.hardware:
        total = sum(plan.seconds(cluster))
        longest, chain = plan.critical_path(cluster)
        wall = plan.wall_seconds(cluster)
        yield (
            f"{cluster.name}: {hours(total)} of jobs, {hours(longest)} on the critical path, "
            f"{hours(wall)} if every core and GPU is used as soon as it is free"
        )
        names = chain if len(chain) <= CHAIN else [*chain[: CHAIN - 1], "...", chain[-1]]
        yield "  " + " -> ".join(names)


def exceeded(plan: Plan, limits: Mapping[str, float]) -> list[str]:
    """Return what does not fit the limits, a line each, or one line that says all does."""
    cluster = plan.hardware[-1]
    machine = cluster.machine
    memory = limits.get("mem_mb", machine.memory / 1e6) * 1e6
    disk = limits.get("disk_mb", machine.disk / 1e6) * 1e6
    needs, seconds = plan.needs, plan.seconds(cluster)
    found: dict[str, str] = {}
    for job, need, time in zip(plan.jobs, needs, seconds, strict=True):
        if plan.memory(need) > memory:
            found.setdefault(
                f"{job.rule} memory",
                f"{job.name} needs {plan.memory(need) / GB:,.0f} GB of memory, the limit is "
                f"{memory / GB:,.0f} GB",
            )
        longest = limits.get("runtime", float("inf")) * MINUTE
        if time > longest:
            found.setdefault(
                f"{job.rule} time",
                f"{job.name} takes {hours(time)}, the limit is {hours(longest)}: retries go on "
                f"where it was stopped, {math.ceil(time / longest) - 1} at least",
            )
    kept = sum(need.disk for need in needs) + max(need.scratch for need in needs)
    if kept > disk:
        text = f"all artifacts need {kept / GB:,.0f} GB of disk, the limit is {disk / GB:,.0f} GB"
        found["disk"] = text
    wanted, gpus = max(plan.gpus), limits.get("gpu", cluster.gpus)
    if wanted and not gpus:
        found["gpus"] = f"jobs ask for a GPU and {cluster.name} has none: they run on its cores"
    elif wanted > gpus:
        job = plan.jobs[plan.gpus.index(wanted)]
        found["gpus"] = f"{job.name} asks for {wanted} GPUs, the limit is {gpus:g}"
    head = f"limits of {_limits_of(cluster, limits)}: "
    return (
        [head + "exceeded by", *(f"  {line}" for line in found.values())]
        if found
        else [head + "nothing exceeds them"]
    )


def _limits_of(cluster: Cluster, limits: Mapping[str, float]) -> str:
    return "the profile" if limits else cluster.name
