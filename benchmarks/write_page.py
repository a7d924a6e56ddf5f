"""Run every benchmark and write what it prints into docs/measurements/cpu.md.

    make bench                                       all of them
    python benchmarks/write_page.py training         some; printed, not written

takes under 15 minutes on two quiet cores. A benchmark that fails is named and the others go on;
its last table is not kept, and the exit code is 1.
"""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from knnlm.runtime.provenance import cpu_name, git_state

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "measurements" / "cpu.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HERE = Path(__file__)
PARTS = {"write_page", "ratio_table", "prepared_lm", "recipes"}  # of the others
ELSEWHERE = {"gpu", "plan"}  # need a GPU, or a measured machine and a run: docs/scaling.md


def run(script: Path) -> tuple[str, int, float]:
    """Run one benchmark; return what it printed, its exit code and its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "scripts", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip(), done.returncode, time.perf_counter() - started


def main() -> int:
    every = {path.stem for path in HERE.parent.glob("*.py")}
    chosen = sys.argv[1:] or sorted(every - PARTS - ELSEWHERE)
    commit = str(git_state(ROOT)["commit"])[:12]
    started, load = time.perf_counter(), os.getloadavg()[0]
    sections, failed = [], []
    for name in chosen:
        text, code, seconds = run(HERE.with_name(f"{name}.py"))
        if code:
            failed.append(name)
            text = f"### {name}\n\nFailed with exit code {code}."
        if not text.startswith("###"):
            text = f"### {name}\n\n{text}"
        sections.append(f"{text}\n\n`benchmarks/{name}.py`, {seconds:.0f} s")
        print(f"\n{sections[-1]}", flush=True)
    minutes = (time.perf_counter() - started) / 60
    page = (
        "## Speed against peers and bounds\n\n"
        f"Written by `make bench` (commit {commit}), {datetime.now(UTC):%d %B %Y}, in "
        f"{minutes:.0f} minutes on {os.cpu_count()} cores ({cpu_name()}); load before the start "
        f"{load:.1f}. Do not edit: run it again.\n\n" + "\n\n".join(sections) + "\n"
    )
    if len(sys.argv) == 1:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{page}{END}{after}", encoding="utf-8")
        print(f"\n{PAGE.relative_to(ROOT)} written, {minutes:.1f} minutes")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
