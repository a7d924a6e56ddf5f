"""Logs and progress: everything to the job's log file, short progress lines to the terminal too."""

import logging
import os
import sys
import time
from pathlib import Path

from knnlm.runtime.launch import is_launched

LOGGER = logging.getLogger("macondo")
SECONDS_BETWEEN_LINES = 5.0


def log_to(path: str | Path) -> None:
    """Send stdout, stderr and the log to a file; show progress on the terminal, if there is one.

    The file descriptors themselves are redirected, so that messages of C++ libraries and
    tracebacks land in the file as well. Of several processes the first empties the file and
    shows progress; all of them append to it.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w") if os.isatty(2) else None
    empty = 0 if is_launched() else os.O_TRUNC
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | empty, 0o644)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if terminal is not None:
        handlers.append(logging.StreamHandler(terminal))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    LOGGER.handlers = handlers
    LOGGER.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    LOGGER.propagate = False


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds; a training of days has many hours."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Progress:
    """Log how far a long step is, how fast it goes and how long it will take.

    Units that an earlier, interrupted run finished count as done but not for the speed.
    """

    def __init__(self, label: str, *, total: int, unit: str, done: int = 0) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.first = self.done = done
        self.started = self.last = time.monotonic()
        if done:
            LOGGER.info("%s: %s of %s %s were done before", label, f"{done:,}", f"{total:,}", unit)

    def update(self, done: int, note: str = "") -> None:
        """Note that `done` units are finished; log a line at most every few seconds."""
        self.done = done
        now = time.monotonic()
        if done < self.total and now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        speed = (done - self.first) / max(now - self.started, 1e-9)
        left = (self.total - done) / max(speed, 1e-9)
        LOGGER.info(
            "%s: %s of %s %s (%d %%), %s %s/s, %s left%s",
            self.label,
            f"{done:,}",
            f"{self.total:,}",
            self.unit,
            100 * done // max(self.total, 1),
            f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}",
            self.unit,
            clock(left),
            f", {note}" if note else "",
        )
