"""What a process is: on which device, and which one of how many."""

import os

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def this_process() -> PartialState:
    """Return accelerate's view of this process: its device, its rank and how many there are.

    Raises:
        ValueError: if several were launched for GPUs on a machine that has none; each would
            train on its own.
    """
    # Processes that share a CPU are joined only if it is said at the first call.
    process = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if process.num_processes != launched:
        raise ValueError(
            f"expected a GPU for each of {launched} processes, found none; on CPUs ask for "
            "processes instead of gpu in the resources of the job"
        )
    return process
