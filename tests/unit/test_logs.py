"""Progress: on the terminal if there is one, in the log in any case."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from knnlm.runtime import logs
from knnlm.runtime.logs import LOGGER, Progress, clock

SCRIPTS = Path(__file__).parents[2] / "scripts"
JOB = """
import os, sys
from knnlm.runtime.job import begin
from knnlm.runtime.logs import Progress

begin(log=sys.argv[1])
progress = Progress("train base", total=10, unit="tokens", done=4)
progress.update(10, "loss 1.5")
print("from Python")
os.system("echo from a library >&2")
"""
LINE = r"train base: 10 of 10 tokens \(100 %\), [\d,]+ tokens/s, 0:00:00 left, loss 1\.5"


def run_job(log, **streams):
    subprocess.run(
        [sys.executable, "-c", JOB, str(log)],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        check=True,
        **streams,
    )
    return log.read_text()


def test_a_terminal_shows_progress_and_the_log_has_everything(tmp_path):
    terminal, side = pty.openpty()

    log = run_job(tmp_path / "logs" / "job.log", stdout=side, stderr=side)
    os.close(side)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)

    assert re.search(LINE, shown)
    assert "from" not in shown
    assert re.search(LINE, log)
    assert "4 of 10 tokens were done before" in log
    assert "from Python" in log
    assert "from a library" in log


def test_without_a_terminal_only_the_log_is_written(tmp_path):
    with (tmp_path / "screen").open("w") as screen:
        log = run_job(tmp_path / "job.log", stdout=screen, stderr=screen)

    assert (tmp_path / "screen").read_text() == ""
    assert re.search(LINE, log)


def test_speed_and_time_left_count_only_what_was_done_now(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(LOGGER, "propagate", True)
    LOGGER.setLevel("INFO")
    progress = Progress("search", total=1000, unit="queries", done=400)

    now[0] += 10
    progress.update(500)
    now[0] += 1
    progress.update(510)  # too soon for another line

    assert caplog.messages[1:] == [
        "search: 500 of 1,000 queries (50 %), 10 queries/s, 0:00:50 left"
    ]


def test_what_takes_seconds_each_has_a_speed_too(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(LOGGER, "propagate", True)
    LOGGER.setLevel("INFO")
    progress = Progress("fine-tuning", total=2, unit="trainings")

    now[0] += 40
    progress.update(2)

    assert "2 of 2 trainings (100 %), 0.05 trainings/s" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (200_000, "55:33:20")]
)
def test_a_duration_of_days_keeps_its_hours(seconds, text):
    assert clock(seconds) == text
