"""What one job needs, and the time that a machine takes for it. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
Wildcards = Mapping[str, str]

MB, FP32 = 1e6, 4
PLAIN_PROCESS, TORCH_PROCESS = 250 * MB, 600 * MB  # resident before any data
GPU_PROCESS = 4000 * MB  # on a GPU: torch, driver, libraries, pinned buffers
START = 5.0  # seconds until a process computes
LAYER_SECONDS = 1e-3  # to launch forward, backward and update of one layer, however small it is
DISK_RATE = 5e8  # bytes/s of a shared file system, checksums included
ONE_MORE = 0.8  # of a thread or a GPU is what a further one adds
STEP = 1500.0  # FLOPs that a core would do in the time of an interpreted step
LOGIT = 400.0  # FLOPs that it would do in the time of a softmax or a KL with gradient, a logit


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one job takes, whatever the machine."""

    memory: float = 0.0  # bytes of data at most in memory at a time
    gpu_memory: float = 0.0  # further bytes, which are on the GPU where there is one
    disk: float = 0.0  # bytes of the outputs, or of unfinished work if that is more
    flops: float = 0.0  # of matrix products, and in the same unit what takes as long otherwise
    layers: float = 0.0  # layers times updates, each of which Python launches
    moved: float = 0.0  # bytes read from disk and written to it
    gpu: bool = False  # whether it uses a GPU at the scales that have one
    shared: bool = False  # whether several processes can share its FLOPs, with a GPU each
    torch: bool = True  # whether the process imports torch
    unknown: str = ""  # why all this is not known; then it asks for the default

    def process_memory(self, config: Config) -> float:
        """Return the bytes of the process, its libraries included."""
        if self.on_gpu(config):
            return self.memory + GPU_PROCESS
        return self.memory + self.gpu_memory + (TORCH_PROCESS if self.torch else PLAIN_PROCESS)

    def on_gpu(self, config: Config) -> bool:
        """Return whether the job asks for a GPU at the scale of a config."""
        return self.gpu and config["scale"] != "cpu"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One node of a kind, as in data/hardware.yaml: FLOP/s of a core and of a GPU, and bytes."""

    name: str
    core_flops: float
    gpu_flops: float
    cores: int
    gpus: int
    memory: float
    gpu_memory: float
    disk: float

    def seconds(self, need: Need, *, threads: int = 1, gpus: int = 1) -> float:
        """Return the estimated seconds of a job with so many threads and, if it can, GPUs."""
        on_gpu = need.gpu and self.gpus > 0
        at_once = (gpus if need.shared else 1) if on_gpu else min(threads, self.cores)
        rate = (self.gpu_flops if on_gpu else self.core_flops) * (1 + ONE_MORE * (at_once - 1))
        return START + need.flops / rate + need.layers * LAYER_SECONDS + need.moved / DISK_RATE


def machine_of(hardware: Mapping[str, Any], kind: str) -> Machine:
    """Return a kind of machine of data/hardware.yaml.

    Raises:
        ValueError: if it is not there.
    """
    if kind not in hardware:
        raise ValueError(f"expected hardware among {', '.join(hardware)}, got {kind!r}")
    return Machine(name=kind, **hardware[kind])
