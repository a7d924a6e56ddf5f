"""The rates of this machine, measured in half a minute: what `plan_work.Machine` is made of.

Compute is measured in CPU time of one thread, so that other work on the cores does not enter.
Nothing is measured on the workflow itself.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDES = (16, 32, 64, 128, 256, 512, 1024)
ROWS, LONGEST = 1024, 4096  # of the products that are measured
SECONDS = 0.6  # of each measurement
VALUES = 1 << 22  # 16 MiB of fp32, as the logits of a small batch
OPERATIONS = 2000
FILE_BYTES = 128 << 20
START = {
    "start": "import numpy, pandas, pyarrow.parquet",
    "start_torch": "import accelerate, pandas, pyarrow.parquet, torch",
}


def measure_machine(folder: Path) -> dict[str, Any]:
    """Return the block of this machine, as in data/hardware.yaml.

    Args:
        folder: on the disk that is measured; a file is written there and removed.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cpu = {
            "products": {side: _product_rate(side) for side in SIDES},
            "half": 1.0,
            "moved": _moved_rate(),
            "exponentials": _exponential_rate(),
            "operation": _operation_seconds(),
        }
    finally:
        torch.set_num_threads(threads)
    written, read = _disk_rates(folder)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "gpus": torch.cuda.device_count(),
        "memory": float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
        "disk": float(shutil.disk_usage(folder).free),
        "cpu": cpu,
        "gpu": None,
        "read": read,
        "written": written,
        "step": _step_seconds(),
        **{name: _start_seconds(code) for name, code in START.items()},
    }


def seconds_each(function: Callable[[], object]) -> float:
    """Return the CPU seconds of one call, of as many as fit in `SECONDS` after a first one."""
    function()
    calls, start = 0, time.process_time()
    while (passed := time.process_time() - start) < SECONDS:
        function()
        calls += 1
    return passed / calls


def _product_rate(side: int) -> float:
    import torch

    columns = min(4 * max(side, 128), LONGEST)
    a, b = torch.randn(ROWS, side), torch.randn(side, columns)
    out = torch.empty(ROWS, columns)
    return 2 * ROWS * side * columns / seconds_each(lambda: torch.mm(a, b, out=out))


def _moved_rate() -> float:
    """Return bytes/s of an addition: two arrays are read, one is written.

    All three are in memory that is in use already, as are most arrays of a training loop.
    """
    import torch

    a, b, out = (torch.ones(VALUES) for _ in range(3))
    return 3 * 4 * VALUES / seconds_each(lambda: torch.add(a, b, out=out))


def _exponential_rate() -> float:
    import torch

    values, out = torch.ones(1 << 16), torch.empty(1 << 16)
    return (1 << 16) / seconds_each(lambda: torch.exp(values, out=out))


def _operation_seconds() -> float:
    """Return the seconds of a small operation, half of them with a gradient to come."""
    import torch

    weight = torch.ones(8, requires_grad=True)

    def few() -> None:
        value = weight
        for _ in range(OPERATIONS // 4):
            value = value * 1.0
        value.sum().backward()

    return seconds_each(few) / (OPERATIONS // 2)


def _step_seconds() -> float:
    """Return the seconds of a simple interpreted step: a look-up, a branch, an addition."""
    table = {number: number for number in range(1000)}

    def loop() -> int:
        total = 0
        for number in range(100_000):
            if number % 1000 in table:
                total += table[number % 1000]
        return total

    return seconds_each(loop) / 300_000


def _disk_rates(folder: Path) -> tuple[float, float]:
    """Return bytes/s of writing with a checksum, and of reading with one."""
    import hashlib

    folder.mkdir(parents=True, exist_ok=True)
    path, block = folder / f".measured-{os.getpid()}", bytes(1 << 20)
    try:
        start = time.perf_counter()
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for _ in range(FILE_BYTES >> 20):
                file.write(block)
                digest.update(block)
            file.flush()
            os.fsync(file.fileno())
        written = FILE_BYTES / (time.perf_counter() - start)
        start = time.perf_counter()
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        return written, FILE_BYTES / (time.perf_counter() - start)
    finally:
        path.unlink(missing_ok=True)


def _start_seconds(code: str) -> float:
    """Return the CPU seconds of a fresh process that imports, the second time it does."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(2):
        before = _children_seconds()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        seconds = _children_seconds() - before
    return seconds


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
