"""A job reuses the memory that it frees."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
FAULTS = """
import resource, sys
import numpy as np
from knnlm.runtime.memory import keep_freed_blocks
if sys.argv[1] == "keep":
    keep_freed_blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(5 << 20)  # 40 MiB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        env={"PYTHONPATH": str(SCRIPTS), "NUMPY_MADVISE_HUGEPAGE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="malloc of glibc")
def test_a_block_that_is_freed_and_wanted_again_costs_no_new_pages():
    assert 4 * faults("keep") < faults("give back")
