"""What the workflow itself costs beside its jobs.

Rows: a run with nothing to do, a figure after an edit of its module, and the dry run of the scale
`paper`, each in seconds against its goal, on a copy of the project with a finished run of tiny
sizes: as many jobs as at the scale `cpu`. And, where results/ holds a finished run of the scale
`cpu`, its wall time against the sum of its jobs' seconds shared by the cores that it was given.

    .venv/bin/python benchmarks/workflow.py [--run cpu-gazetteer] [--cores 2]
"""

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from ratio_table import Row, print_table

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "config.yaml", "workflow", "scripts", "profiles", "envs", "data")
FIGURE = "scripts/knnlm/experiments/knn_perplexity/figure.py"
NO_OP, EDITED, DRY, SHARE = 3.0, 10.0, 10.0, 1.25  # goals
REPETITIONS = 3  # the fastest counts, because other work may share the cores
STAMP = re.compile(r"^\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]$", re.MULTILINE)


def snakemake(folder: Path, *arguments: str) -> tuple[float, str]:
    """Return the seconds and the output of a Snakemake call."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stdout[-4000:])
    return time.perf_counter() - start, done.stdout


def copy_project(folder: Path) -> None:
    """Copy what a run needs into a folder."""
    ignored = shutil.ignore_patterns("downloads", "__pycache__")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copyfile(source, folder / name)


def no_op(folder: Path, arguments: list[str]) -> float:
    times = []
    for _ in range(REPETITIONS):
        seconds, output = snakemake(folder, *arguments)
        if "Nothing to be done" not in output:
            raise SystemExit(f"expected a second run to have nothing to do, got\n{output[-3000:]}")
        times.append(seconds)
    return min(times)


def edited_figure(folder: Path, arguments: list[str]) -> float:
    times = []
    for number in range(REPETITIONS):
        with (folder / FIGURE).open("a") as module:
            module.write(f"\n\nEDITED = {number}\n")
        seconds, output = snakemake(folder, "knn_perplexity", *arguments[1:])
        if "plot" not in output:
            raise SystemExit(f"expected the figure to be drawn again, got\n{output[-3000:]}")
        times.append(seconds)
    return min(times)


def dry_run(folder: Path) -> tuple[float, int]:
    arguments = ("all", "--dry-run", "--quiet", "rules", "--config", "scale=paper")
    found = [snakemake(folder, *arguments) for _ in range(REPETITIONS)]
    jobs = re.search(r"^total\s+(\d+)", found[0][1], re.MULTILINE)
    return min(seconds for seconds, _ in found), int(jobs[1]) if jobs else 0


def wall_and_work(run: str) -> tuple[float, float, int] | None:
    """Return wall seconds, the sum of the jobs' seconds and the jobs of a finished run."""
    costs = ROOT / "results" / run / "tables" / "cost.csv"
    if not costs.is_file():
        return None
    jobs = list(csv.DictReader(costs.open(encoding="utf-8")))
    best = None
    for log in (ROOT / ".snakemake" / "log").glob("*.log"):
        text = log.read_text(encoding="utf-8", errors="replace")
        stamps = [datetime.strptime(stamp, "%c").timestamp() for stamp in STAMP.findall(text)]
        finished = text.count("Finished jobid")
        if f"results/{run}/" in text and finished >= len(jobs):
            best = max(best or (0, 0, 0), (log.stat().st_mtime, stamps[-1] - stamps[0], finished))
    return best and (best[1], sum(float(job["seconds"]) for job in jobs), best[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="cpu-gazetteer")
    parser.add_argument("--cores", type=int, default=2, help="that the finished run was given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder)
        paper, jobs = dry_run(folder)
        arguments = ["all", "--configfile", str(ROOT / "tests" / "tiny.yaml")]
        snakemake(folder, *arguments)
        rows = [
            Row("a run with nothing to do: s, goal", no_op(folder, arguments), NO_OP, "<= 1"),
            Row("an edited figure: s, goal", edited_figure(folder, arguments), EDITED, "<= 1"),
            Row(f"dry run at `paper`, {jobs} jobs: s, goal", paper, DRY, "<= 1"),
        ]
    note = f"results/{options.run} is not there, or not of one run: no row of it."
    if found := wall_and_work(options.run):
        wall, work, finished = found
        share = work / options.cores
        rows.append(Row(f"{options.run}: wall s, jobs' s / cores", wall, share, f"<= {SHARE}"))
        note = (
            f"{options.run}: {finished} jobs; jobs too short to have a benchmark file and "
            "Snakemake itself are in the wall time only."
        )
    print_table("The workflow itself", rows, note)


if __name__ == "__main__":
    main()
