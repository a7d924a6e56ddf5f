"""Counted FLOPs: the matrix products of a forward pass, or of an update, on no machine at all.

Tensors without data run through the module and torch counts; a multiplication and an addition
are two. Attention is counted in full, as if its causal half were computed as well, and nothing
but matrix products counts. So the numbers are the same everywhere.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from knnlm.lm.gpt2 import LanguageModel

Module = TypeVar("Module", bound=nn.Module)


def without_data(module: Module) -> Module:
    """Return a copy of a module whose tensors have shapes and no data.

    A language model's copy computes attention by plain matrix products: fused kernels are not
    counted on every device.
    """
    hollow = copy.deepcopy(module, _no_data(module)).eval()
    if isinstance(hollow, LanguageModel):
        for block in hollow.transformer.h:
            block.attn.fused = False
    elif hasattr(hollow, "set_attn_implementation"):  # of transformers
        hollow.set_attn_implementation("eager")
    return hollow


def _no_data(module: nn.Module) -> dict[int, object]:
    """Return what a deep copy should put in the place of each tensor of a module."""
    hollow: dict[int, object] = {}
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta")
        hollow[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        hollow[id(buffer)] = torch.empty_like(buffer, device="meta")
    return hollow


def window(n_tokens: int) -> dict[str, Any]:
    """Return the arguments with which a language model without data reads one window.

    The mask is given because making one from the tokens would look at their data.
    """
    return {
        "input_ids": torch.empty(1, n_tokens, dtype=torch.int64, device="meta"),
        "attention_mask": torch.empty(1, 1, n_tokens, n_tokens, device="meta"),
        "use_cache": False,
    }


@torch.no_grad()
def forward_flops(module: nn.Module, *inputs: Tensor, **named: Any) -> int:
    """Return the FLOPs of one forward pass.

    Args:
        module: from `without_data`.
        inputs: its arguments, on the device "meta".
        named: arguments by name, such as those of `window`.
    """
    with FlopCounterMode(display=False) as counter:
        module(*inputs, **named)
    return counter.get_total_flops()


def update_flops(module: nn.Module, *inputs: Tensor, **named: Any) -> int:
    """Return the FLOPs of a forward and a backward pass for what requires a gradient.

    Args:
        module: from `without_data`; returns logits, or an object that has them.
        inputs: its arguments, on the device "meta".
        named: arguments by name, such as those of `window`.
    """
    with FlopCounterMode(display=False) as counter:
        output = module(*inputs, **named)
        getattr(output, "logits", output).sum().backward()
    return counter.get_total_flops()
