"""What one job needs, and the register of rules whose needs are known.

Standard library only: the Snakefile imports this module, in every job.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knnlm.plan.work import Work

MB = 1e6
PLAIN_PROCESS, TORCH_PROCESS = 250 * MB, 700 * MB  # resident before any data
GPU_PROCESS = 4000 * MB  # more where there is a GPU: driver, libraries, pinned buffers

Config = Mapping[str, Any]
Wildcards = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one job does and takes, whatever the machine.

    Attributes:
        work: see `Work`.
        memory: bytes of data at most in memory at a time.
        device: further bytes, which are on the GPU where there is one.
        disk: bytes of its outputs.
        scratch: bytes that it has on disk beside them while it runs.
        threads: name of its entry in the block `threads` of the config; None is one thread.
        gpu: whether it uses a GPU at the scales that have one.
        shared: whether several processes can share it, with a GPU each.
        half: whether its products are in 16 bits there.
    """

    work: Work = field(default_factory=Work)
    memory: float = 0.0
    device: float = 0.0
    disk: float = 0.0
    scratch: float = 0.0
    threads: str | None = None
    gpu: bool = False
    shared: bool = False
    half: bool = False

    def process_memory(self, *, on_gpu: bool) -> float:
        """Return the bytes of the process, its libraries included.

        Args:
            on_gpu: whether it runs on a GPU, whose driver takes memory of the process as well.
        """
        elsewhere = GPU_PROCESS if on_gpu else self.device
        return self.memory + elsewhere + (TORCH_PROCESS if self.work.torch else PLAIN_PROCESS)

    def on_gpu(self, config: Config) -> bool:
        """Return whether it asks for a GPU at the scale of a config."""
        return self.gpu and config["scale"] != "cpu"


Model = Callable[[Config, Wildcards], Need]
MODELS: dict[str, Model] = {}


def models(*rules: str) -> Callable[[Model], Model]:
    """Register a function as the model of rules."""

    def register(model: Model) -> Model:
        MODELS.update(dict.fromkeys(rules, model))
        return model

    return register


def half_precision(precision: str) -> bool:
    """Return whether products are in 16 bits."""
    return precision != "fp32"
