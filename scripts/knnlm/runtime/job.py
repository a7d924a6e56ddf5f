"""The first line of every script: where the job logs, its threads, and how it is stopped."""

import os
import sys
from pathlib import Path

from knnlm.runtime.logs import log_to
from knnlm.runtime.memory import keep_freed_blocks
from knnlm.runtime.signals import listen


def begin(*, log: str | Path, threads: int = 1) -> None:
    """Redirect output to the log, give libraries one thread count, let SIGTERM stop the job gently.

    The count is a setting of the scale, not of the machine, so that `--cores` changes no number.

    Args:
        log: the job's log file.
        threads: compute threads of this job.
    """
    log_to(log)
    listen()
    keep_freed_blocks()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(threads)
