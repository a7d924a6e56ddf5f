"""The state of a training: one safetensors file from which a killed run goes on.

It holds the trained parameters, the optimizer's tensors, and as JSON in its header the number
of finished updates, the log so far and the fp16 loss scale. Randomness needs no place in it:
every draw is a function of the seed and the number of the update.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from knnlm.runtime.artifacts import ArtifactError, atomic_path, rebuild_hint

HEADER = "training"


@dataclass
class Log:
    """What a training has reported, and the losses that wait for the next row."""

    done: int = 0  # finished updates
    rows: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0
    n_losses: int = 0
    scaler: dict[str, Any] | None = None  # of fp16


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that training changes, by name, shared ones once."""
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


def save_state(path: Path, module: nn.Module, optimizer: Optimizer, log: Log) -> None:
    """Write the state of a training, atomically.

    Raises:
        DiskFullError: if the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained(module):
        tensors[f"model.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = value.contiguous()
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: json.dumps(asdict(log))})


def save_parameters(path: Path, module: nn.Module) -> None:
    """Write the trained parameters of a module, atomically.

    Raises:
        DiskFullError: if the disk is full.
    """
    tensors = {name: parameter.detach().contiguous() for name, parameter in trained(module)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


@torch.no_grad()
def load_parameters(path: Path, module: nn.Module) -> None:
    """Put parameters that `save_parameters` wrote back into their module."""
    stored = load_file(path)
    for name, parameter in trained(module):
        parameter.copy_(stored[name])


@torch.no_grad()
def load_state(path: Path, module: nn.Module, optimizer: Optimizer) -> Log:
    """Put a saved state into a module and its optimizer, and return the log.

    Raises:
        ArtifactError: if the file is truncated, or belongs to another model or optimizer.
    """
    parameters = dict(trained(module))
    try:
        with safe_open(path, "pt") as file:
            for name, parameter in parameters.items():
                parameter.copy_(file.get_tensor(f"model.{name}"))
            for full in file.keys():  # noqa: SIM118 (the file is no mapping)
                if full.startswith("optimizer."):
                    _, key, name = full.split(".", 2)
                    parameter = parameters[name]
                    optimizer.state[parameter][key] = file.get_tensor(full).to(parameter.device)
            return Log(**json.loads(file.metadata()[HEADER]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ArtifactError(
            f"{path} is not a state of this training ({error}); {rebuild_hint(path)}"
        ) from error
