"""The optimizer of a config block: AdamW, Adam with decay in the gradient, or Nesterov's SGD."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from knnlm.lm.state import trained


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
        return kind(groups, lr=lr, betas=tuple(settings["betas"]), fused=True)
    if name == "nesterov":
        return SGD(groups, lr=lr, momentum=settings["momentum"], nesterov=True, fused=True)
    raise ValueError(f"unknown optimizer {name}; expected adamw, adam or nesterov")
