"""The plan against a finished run: memory and seconds of each rule, planned and measured.

    PYTHONPATH=scripts python benchmarks/plan.py [--run results/cpu-gazetteer]

prints one table. Peaks (max_rss) and CPU seconds are those of the benchmark files; Snakemake looks
at CPU seconds every half second at first and later every 30 s, so they may be too few by 30. A rule
passes if its planned memory is within a factor of 2 of the peak; only jobs of more than 10 s count.
Seconds are at the rates of data/hardware.yaml, of a core or of the GPU named by --hardware.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import yaml

from knnlm.plan.needs import seconds
from knnlm.plan.resources import need_of
from knnlm.plan.table import dry_run

ROOT = Path(__file__).resolve().parents[1]
COUNTED = 10.0  # seconds of a job
FACTOR = 2.0
MIB = 1.048576  # MB


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("results/cpu-gazetteer"))
    parser.add_argument("--hardware", default="cpu")
    given = parser.parse_args()
    settings = given.run / "tables/settings.json"
    if not settings.is_file():
        print(f"there is no finished {given.run} to compare the plan with")
        return
    config = json.loads(settings.read_text())
    kinds = yaml.safe_load((ROOT / "data/hardware.yaml").read_text())
    machine, rows = kinds[given.hardware], []
    for job in dry_run(ROOT / "Snakefile", config):
        benchmark = Path(job.printed.get("benchmark", ""))
        if not benchmark.is_file():
            continue
        found = pd.read_csv(benchmark, sep="\t", na_values=["-", "NA"]).iloc[-1]
        need = need_of(config, job.rule, job.wildcards)
        planned = seconds(machine, need, threads=job.threads)
        row = {"rule": job.rule, "jobs": 1, "planned_s": planned}
        row |= {"cpu_s": found["cpu_time"], "wall_s": found["s"], "longest": found["s"]}
        row |= {"planned_mb": need.process_memory(config) / 1e6}
        rows.append(row | {"peak_mb": found["max_rss"] * MIB})
    table = pd.DataFrame(rows)
    how = dict.fromkeys(table.columns.drop("rule"), "sum")
    how |= dict.fromkeys(("planned_mb", "peak_mb", "longest"), "max")
    print("| rule | jobs | planned s | CPU s | wall s | planned MB | peak MB | within 2 |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for rule, row in table.groupby("rule", sort=False).agg(how).iterrows():
        within = 1 / FACTOR <= row.planned_mb / row.peak_mb <= FACTOR
        verdict = ("yes" if within else "NO") if row.longest > COUNTED else "-"
        numbers = row[["jobs", "planned_s", "cpu_s", "wall_s", "planned_mb", "peak_mb"]]
        print(f"| {rule} | {' | '.join(f'{n:.0f}' for n in numbers)} | {verdict} |")
    total = table[["jobs", "planned_s", "cpu_s", "wall_s"]].sum()
    print(f"| total | {' | '.join(f'{n:.0f}' for n in total)} | | | |")


if __name__ == "__main__":
    main()
