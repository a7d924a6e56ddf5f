"""What one job needs, and the register of rules whose needs are known.

Standard library only: the Snakefile imports this module, in every job.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knnlm.runtime.plan_work import Work

MB = 1e6
PLAIN_PROCESS, TORCH_PROCESS = 250 * MB, 700 * MB  # resident before any data

Config = Mapping[str, Any]
Wildcards = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one job does and takes, whatever the machine.

    Attributes:
        work: see `Work`.
        memory: bytes of data at most in memory at a time; of the GPU, where it has one.
        disk: bytes of its outputs.
        scratch: bytes that it has on disk beside them while it runs.
        threads: name of its entry in the block `threads` of the config; None is one thread.
        gpu: whether it uses a GPU at the scales that have one.
        half: whether its products are in 16 bits there.
    """

    work: Work = field(default_factory=Work)
    memory: float = 0.0
    disk: float = 0.0
    scratch: float = 0.0
    threads: str | None = None
    gpu: bool = False
    half: bool = False

    @property
    def process_memory(self) -> float:
        """Bytes of the process, its libraries included."""
        return self.memory + (TORCH_PROCESS if self.work.torch else PLAIN_PROCESS)


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
