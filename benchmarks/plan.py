"""The plan against a finished run: seconds of each rule, estimated and measured.

    PYTHONPATH=scripts python benchmarks/plan.py [--run results/cpu-gazetteer]

prints one table. Rates are those of results/machine.json (`snakemake plan` measures them), never
of the run. Snakemake looks at CPU seconds every half second at first and later every 30 s, so the
CPU seconds of a job lie between its last sample and that plus 30, and never above its wall time;
on a machine with other work wall time says little. A rule passes if its planned seconds are within
a factor of 2 of that range; only rules of more than 10 s count.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from knnlm.plan.dag import Job, dry_run, read_jobs
from knnlm.plan.resources import need_of, seconds_of
from knnlm.plan.work import Machine

ROOT = Path(__file__).resolve().parents[1]
BETWEEN_SAMPLES = 30.0  # seconds, at most
COUNTED = 10.0  # seconds of a rule
FACTOR = 2.0


class Compared(NamedTuple):
    """One job: planned seconds, CPU seconds at least and at most, wall seconds; memory in MB."""

    rule: str
    planned: float
    least: float
    most: float
    wall: float
    planned_mb: float
    mb: float


def compare(job: Job, config: dict, machine: Machine) -> Iterator[Compared]:
    """Yield the comparison of a job, if it has run."""
    if job.benchmark is None or not Path(job.benchmark).is_file():
        return
    row = pd.read_csv(job.benchmark, sep="\t", na_values=["-", "NA"]).iloc[-1]
    need = need_of(config, job.rule, job.wildcards)
    wall, least = float(row["s"]), float(row["cpu_time"])
    yield Compared(
        rule=job.rule,
        planned=seconds_of(config, need, machine),
        least=least,
        most=max(least, min(wall, least + BETWEEN_SAMPLES)),
        wall=wall,
        planned_mb=need.process_memory(on_gpu=False) / 1e6,
        mb=float(row["max_rss"]) * 1.048576,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("results/cpu-gazetteer"))
    run = parser.parse_args().run
    settings, measured = run / "tables/settings.json", Path("results/machine.json")
    if not settings.is_file() or not measured.is_file():
        print(f"there is no finished {run} with a results/machine.json to compare the plan with")
        return
    config = json.loads(settings.read_text())
    machine = Machine.of("this", json.loads(measured.read_text()))
    jobs = read_jobs(dry_run(ROOT / "Snakefile", settings, "all"))
    rows = [row for job in jobs for row in compare(job, config, machine)]
    table = pd.DataFrame(rows, columns=list(Compared._fields))
    how = dict.fromkeys(("planned", "least", "most", "wall"), "sum")
    grouped = table.groupby("rule", sort=False)
    found = grouped.agg(how | {"planned_mb": "max", "mb": "max"})
    found.insert(0, "jobs", grouped.size())
    print("| rule | jobs | planned s | CPU s | wall s | within 2 | planned MB | MB |")
    print("|---|---:|---:|---:|---:|---|---:|---:|")
    for rule, row in found.iterrows():
        within = row["least"] / FACTOR <= row["planned"] <= row["most"] * FACTOR
        counted = row["most"] > COUNTED
        verdict = ("yes" if within else "NO") if counted else "-"
        print(
            f"| {rule} | {row['jobs']:.0f} | {row['planned']:.0f} | {row['least']:.0f} to "
            f"{row['most']:.0f} | {row['wall']:.0f} | {verdict} | {row['planned_mb']:.0f} "
            f"| {row['mb']:.0f} |"
        )
    total = found.sum()
    print(
        f"| total | {total['jobs']:.0f} | {total['planned']:.0f} | {total['least']:.0f} to "
        f"{total['most']:.0f} | {total['wall']:.0f} | | | |"
    )


if __name__ == "__main__":
    main()
