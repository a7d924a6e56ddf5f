"""The optimizer of a config block: AdamW, Adam with decay in the gradient, or Nesterov's SGD."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from knnlm.lm.state import trained

# Methods that torch wraps for its compiler, beside `step`.
WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _eager(kind: type[Optimizer]) -> type[Optimizer]:
    """Return an optimizer whose methods are called without what wraps them for torch.compile.

    Nothing here is compiled, and the wrappers import the compiler: 0.8 CPU seconds of each job.
    """
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), plain | {"step": step})


def create_optimizer(module: nn.Module, settings: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer of a config block over what is trained in a module.

    Weights decay in matrices only, not in biases and norms: the habit since GPT-2.

    Args:
        module: already on its device.
        settings: name, lr, weight_decay, and betas (adamw: decoupled decay; adam: decay as part
            of the gradient) or momentum (nesterov: SGD with Nesterov's momentum, whose updates
            are those of fairseq's `nag`).

    Raises:
        ValueError: if the name is unknown or nothing is to be trained.
    """
    parameters = [parameter for _, parameter in trained(module)]
    if not parameters:
        raise ValueError("nothing to train: no parameter of the module requires a gradient")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    lr, name = settings["lr"], settings["name"]
    if name in ("adamw", "adam"):
        kind = AdamW if name == "adamw" else Adam
        return _eager(kind)(groups, lr=lr, betas=tuple(settings["betas"]), fused=True)
    if name == "nesterov":
        return _eager(SGD)(groups, lr=lr, momentum=settings["momentum"], nesterov=True, fused=True)
    raise ValueError(f"unknown optimizer {name}; expected adamw, adam or nesterov")
