"""The optimizer of a config block: AdamW, Adam with decay in the gradient, SGD or Muon."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer

from knnlm.lm.state import trained


def create_optimizer(module: nn.Module, settings: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer of a config block over what is trained in a module.

    Weights decay in matrices only, not in biases and norms: the habit since GPT-2.

    Args:
        module: already on its device.
        settings: name, lr, weight_decay, and betas (adamw: decoupled decay; adam: decay as part
            of the gradient), momentum (nesterov: SGD with Nesterov's momentum, whose updates
            are those of fairseq's `nag`), or both (muon: see `MuonAndAdamW`).

    Raises:
        ValueError: if the name is unknown or nothing is to be trained.
    """
    parameters = [parameter for _, parameter in trained(module)]
    if not parameters:
        raise ValueError("nothing to train: no parameter of the module requires a gradient")
    decay = settings["weight_decay"]
    matrices = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay}
    vectors = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    lr, name = settings["lr"], settings["name"]
    if name in ("adamw", "adam"):
        kind = AdamW if name == "adamw" else Adam
        return kind([matrices, vectors], lr=lr, betas=tuple(settings["betas"]), fused=True)
    if name == "nesterov":
        momentum = settings["momentum"]
        return SGD([matrices, vectors], lr=lr, momentum=momentum, nesterov=True, fused=True)
    if name == "muon":
        hidden = hidden_matrices(module)
        rest = [p for p in matrices["params"] if not any(p is matrix for matrix in hidden)]
        return MuonAndAdamW(
            Muon(
                hidden,
                lr=lr,
                weight_decay=decay,
                momentum=settings["momentum"],
                adjust_lr_fn="match_rms_adamw",
            ),
            AdamW(
                [matrices | {"params": rest}, vectors],
                lr=lr,
                betas=tuple(settings["betas"]),
                fused=True,
            ),
        )
    raise ValueError(f"unknown optimizer {name}; expected adamw, adam, nesterov or muon")


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Return the trained matrices between hidden states: all but those of embeddings and head."""
    outside = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    head = getattr(module, "lm_head", None)
    if head is not None:
        outside.add(id(head.weight))
    return [p for _, p in trained(module) if p.ndim == 2 and id(p) not in outside]


class MuonAndAdamW(Optimizer):
    """Muon (Jordan et al., 2024) for the matrices between hidden states, AdamW for all others.

    Muon's step is scaled to the size of AdamW's (Liu et al., 2025), so one learning rate and one
    schedule serve both.
    """

    def __init__(self, muon: Muon, adamw: AdamW) -> None:
        self.muon, self.adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update every parameter once."""
        assert closure is None, "no part of this library evaluates a loss again within a step"
        # Rates and loaded states are set on this optimizer alone: the parts take them from it.
        self.muon.param_groups, self.adamw.param_groups = (
            self.param_groups[:1],
            self.param_groups[1:],
        )
        for part in (self.muon, self.adamw):
            part.state = self.state
            part.step()
