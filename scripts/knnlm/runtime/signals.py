"""SIGTERM, the warning that SLURM sends before it kills: finish the unit in hand, then leave.

The first SIGTERM only sets a flag. A long step asks for it wherever a kill would cost it nothing,
between two units, and leaves there; a step without units runs to its end. A later SIGTERM, and
SIGKILL at any time, kill: what was published by then is kept as well.
"""

import os
import signal
import time
from types import FrameType
from typing import NoReturn

from knnlm.runtime.logs import LOGGER

EXIT_CODE = 128 + signal.SIGTERM  # as of a process that the signal killed
NOTICE = b"SIGTERM: this job will stop after the unit in hand; a second one kills it\n"

# SLURM signals every process of a job, and a launcher among them passes it on to its children: what
# comes this soon after the first is the same request. In seconds.
ECHO = 3.0

_asked_at: float | None = None


def listen() -> None:
    """From now on let the first SIGTERM ask the job to stop instead of killing it."""
    global _asked_at
    _asked_at = None
    signal.signal(signal.SIGTERM, _note)


def _note(number: int, frame: FrameType | None) -> None:
    global _asked_at
    if _asked_at is None:
        _asked_at = time.monotonic()
        os.write(2, NOTICE)  # a handler may have interrupted a write of the log
    elif time.monotonic() - _asked_at > ECHO:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def stop_is_asked() -> bool:
    """Return whether this process was sent SIGTERM since `listen`."""
    return _asked_at is not None


def stop_if_asked() -> None:
    """Leave the job if that was asked for; to be called between two units of a long step.

    Raises:
        SystemExit: with a code that makes Snakemake run the job again next time.
    """
    if stop_is_asked():
        stop()


def stop() -> NoReturn:
    """Leave the job, with a line in its log; everything is saved."""
    LOGGER.info("stopped after SIGTERM; the same command goes on from here")
    raise SystemExit(EXIT_CODE)
