"""What one job needs, and the time that a machine takes for it. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]  # of a run
Wildcards = Mapping[str, str]
Machine = Mapping[str, float]  # a kind in data/hardware.yaml: its rates and limits

FP32, NEIGHBOR = 4, 16  # bytes; the latter of an id, a distance and a value
PROCESS, GPU_PROCESS = 500e6, 4000e6  # bytes before any data; 250e6 without torch, 600e6 with it
ONE_MORE = 0.8  # of a thread or a GPU is what a further one adds


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one job takes, whatever the machine."""

    memory: float = 0.0  # bytes of data at most in memory at a time
    gpu_memory: float = 0.0  # further bytes, which are on the GPU where there is one
    disk: float = 0.0  # bytes of the outputs, or of unfinished work if that is more
    flops: float = 0.0  # of matrix products, and in the same unit what takes as long otherwise
    waiting: float = 5.0  # seconds at least: until it starts, to start every layer, for a disk
    gpu: bool = False  # whether it uses a GPU at the scales that have one
    shared: bool = False  # whether several processes can share it, with a GPU each
    unknown: str = ""  # why all this is not known; then it asks for the default

    def on_gpu(self, config: Settings) -> bool:
        """Return whether the job asks for a GPU at the scale of a run."""
        return self.gpu and config["scale"] != "cpu"

    def process_memory(self, config: Settings) -> float:
        """Return the bytes of the process, its libraries included."""
        return self.memory + (GPU_PROCESS if self.on_gpu(config) else PROCESS + self.gpu_memory)


def seconds(machine: Machine, need: Need, *, threads: int = 1, gpus: int = 1) -> float:
    """Return the estimated seconds of a job with so many threads and, if it can, GPUs."""
    rate, at_once = machine["core_flops"], min(threads, machine["cores"])
    if need.gpu and machine["gpu"]:
        rate, at_once = machine["gpu_flops"], gpus if need.shared else 1
    return max(need.waiting, need.flops / rate) / (1 + ONE_MORE * (at_once - 1))
