"""What each rule cost: time and memory from cost.csv, speed from the logs, disk from manifests."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.runtime.artifacts import MANIFEST

SPEED = re.compile(r"[\d,]+ of [\d,]+ (\w+) \(100 %\), ([\d,.]+) \1/s")


def costs_by_rule(costs: Path, logs: Path) -> list[dict[str, Any]]:
    """Return one entry for each rule, the longest first.

    Args:
        costs: the table of `collect_costs`.
        logs: the folder with {rule}/{wildcards}.log.

    Returns:
        `rule`, `jobs`, `seconds` (summed over jobs), `cpu_seconds`, `max_rss_mb` (of the largest
        job), `speeds` (unit and units a second, of the job's own progress: the median of jobs).
    """
    table = pd.read_csv(costs)
    entries = []
    for rule, jobs in table.groupby("rule"):
        entries.append(
            {
                "rule": rule,
                "jobs": len(jobs),
                "seconds": jobs["seconds"].sum(),
                "cpu_seconds": jobs["cpu_seconds"].sum(),
                "max_rss_mb": jobs["max_rss_mb"].max(),
                "speeds": speeds_of(logs, str(rule)),
            }
        )
    return sorted(entries, key=lambda entry: (-entry["seconds"], entry["rule"]))


def costs_by_experiment(costs: Path) -> list[dict[str, Any]]:
    """Return one entry for each paper and each of its experiments, in the order of the table.

    Args:
        costs: the table of `collect_costs`.

    Returns:
        `paper`, `experiment` ("" for the whole paper), `jobs`, `seconds` and `cpu_seconds`.
    """
    table = pd.read_csv(costs, keep_default_na=False, na_values={"cpu_seconds": [""]})
    table = table[table["paper"] != ""]
    entries = []
    for paper, jobs in table.groupby("paper", sort=False):
        for experiment, some in [("", jobs), *jobs.groupby("experiment", sort=False)]:
            entry = {"paper": paper, "experiment": experiment, "jobs": len(some)}
            entries.append(entry | some[["seconds", "cpu_seconds"]].sum().to_dict())
    return entries


def speeds_of(logs: Path, rule: str) -> list[tuple[str, float]]:
    """Return (unit, units a second) of a rule, the median over its logs; none if it tells none."""
    found: dict[str, list[float]] = {}
    for path in [logs / f"{rule}.log", *sorted((logs / rule).rglob("*.log"))]:
        if path.is_file():
            for unit, speed in SPEED.findall(path.read_text(encoding="utf-8", errors="replace")):
                found.setdefault(unit, []).append(float(speed.replace(",", "")))
    return [(unit, float(pd.Series(speeds).median())) for unit, speeds in sorted(found.items())]


def disk_by_kind(folders: list[Path]) -> list[tuple[str, int, int]]:
    """Return (kind, number of artifacts, bytes) of artifacts, the largest kind first."""
    sizes: dict[str, list[int]] = {}
    for folder in folders:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
        size = sum(file["bytes"] for file in manifest["files"].values())
        sizes.setdefault(manifest["kind"], []).append(size)
    listed = [(kind, len(each), sum(each)) for kind, each in sizes.items()]
    return sorted(listed, key=lambda entry: (-entry[2], entry[0]))
