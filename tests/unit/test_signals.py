"""SIGTERM to a real process: it stops between two units, in one only when asked again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from knnlm.runtime import signals

SCRIPTS = Path(__file__).parents[2] / "scripts"
JOB = """
import sys, time
sys.path.insert(0, {scripts!r})
from knnlm.runtime.job import begin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.signals import stop_if_asked

begin(log={log!r})
for unit in range({units}):
    LOGGER.info("unit %d begins", unit)
    end = time.monotonic() + {seconds}
    while time.monotonic() < end:
        time.sleep(0.01)
    LOGGER.info("unit %d is whole", unit)
    stop_if_asked()
"""


@pytest.fixture
def job(tmp_path):
    """Start a job of some units and return it with its log, when the first unit has begun."""
    started = []

    def start(*, units, seconds):
        log = tmp_path / "job.log"
        code = JOB.format(scripts=str(SCRIPTS), log=str(log), units=units, seconds=seconds)
        started.append(subprocess.Popen([sys.executable, "-c", code]))
        while not log.is_file() or "unit 0 begins" not in log.read_text():
            assert started[-1].poll() is None
            time.sleep(0.01)
        return started[-1], log

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_job_finishes_the_unit_in_hand_and_fails(job):
    process, log = job(units=1000, seconds=0.3)

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=20) == signals.EXIT_CODE
    text = log.read_text()
    assert "SIGTERM: this job will stop after the unit in hand" in text
    assert "unit 0 is whole" in text
    assert "unit 1 begins" not in text
    assert text.rstrip().endswith("the same command goes on from here")


def test_the_echo_of_a_launcher_does_not_kill_what_slurm_has_asked_to_stop(job):
    process, log = job(units=1000, seconds=0.5)

    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)

    assert process.wait(timeout=20) == signals.EXIT_CODE
    assert "unit 0 is whole" in log.read_text()


def test_a_second_sigterm_kills(job):
    process, log = job(units=1, seconds=60)

    process.send_signal(signal.SIGTERM)
    while "SIGTERM" not in log.read_text():
        time.sleep(0.01)
    time.sleep(signals.ECHO + 0.2)
    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=20) == -signal.SIGTERM
    assert "unit 0 is whole" not in log.read_text()


def test_without_a_signal_nothing_stops(job):
    process, log = job(units=3, seconds=0.01)

    assert process.wait(timeout=20) == 0
    assert "unit 2 is whole" in log.read_text()
