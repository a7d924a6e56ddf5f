"""What a process is: on which device, which one of how many, and how precisely it computes."""

import os

from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env

from knnlm.runtime.logs import LOGGER

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # ours: accelerate's


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


def create_accelerator(precision: str, accumulation: int) -> Accelerator:
    """Return an accelerator after checking that this machine can do what is asked.

    Raises:
        ValueError: if the precision is unknown or needs a GPU, or the processes cannot share
            the forward passes of an update evenly.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision}; expected {', '.join(PRECISIONS)}")
    machine = this_process()
    if precision != "fp32" and machine.device.type != "cuda":
        raise ValueError(
            f"precision {precision} needs a GPU: on a CPU it is about 20 times slower than "
            "fp32; set precision: fp32 in config.yaml"
        )
    if accumulation % machine.num_processes:
        raise ValueError(
            f"expected an accumulation that {machine.num_processes} processes can share evenly, "
            f"got {accumulation}; change accumulation in config.yaml or the number of processes"
        )
    if machine.num_processes > 1:
        n = machine.num_processes
        LOGGER.info("%d processes share the %d forward passes of each update", n, accumulation)
    return Accelerator(mixed_precision=PRECISIONS[precision])
