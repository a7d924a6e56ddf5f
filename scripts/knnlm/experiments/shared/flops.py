"""Counted FLOPs: the matrix products of a forward pass, or of an update, on no machine at all.

Tensors without data run through the module and torch counts; a multiplication and an addition
are two. Attention is counted in full, as if its causal half were computed as well, and nothing
but matrix products counts. So the numbers are the same everywhere.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from knnlm.lm.anatomy import apply_f, apply_g, context, width
from knnlm.lm.gpt2 import LanguageModel
from knnlm.retrieval.engines.settings import CODE_BITS, INVERTED_FILES

Module = TypeVar("Module", bound=nn.Module)


class Flops(NamedTuple):
    """Of a token: to compute its distribution, and to train on it, both in FLOPs."""

    query: float
    training: float


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
def forward_flops(module: Callable[..., Any], *inputs: Tensor, **named: Any) -> int:
    """Return the FLOPs of one forward pass.

    Args:
        module: from `without_data`, or a function of parts of one.
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


def flops_of_model(lm: nn.Module) -> Flops:
    """Return the FLOPs of an LM, the mean over the tokens of a window as long as its context."""
    length, hollow = context(lm), without_data(lm)
    query = forward_flops(hollow, **window(length))
    return Flops(query / length, update_flops(hollow, **window(length)) / length)


def flops_of_key(lm: nn.Module) -> float:
    """Return the FLOPs of one key, read before the last MLP: the LM's without that and the head.

    The mean over the tokens of a window as long as the context.
    """
    hollow = without_data(lm)
    residual = torch.empty(1, width(lm), device="meta")
    above = forward_flops(lambda stream: apply_f(hollow, apply_g(hollow, stream)), residual)
    return flops_of_model(lm).query - above


def flops_of_search(index: Mapping[str, Any], *, n_entries: int, dim: int, k: int) -> float:
    """Return the FLOPs of finding and weighing the neighbors of one query.

    exact compares it with every key, and so does fused, whose encoding of the keys counts no more
    here than that of a datastore. ivf_flat compares it with every centroid and with the keys
    of the nearest clusters, taken to be of equal size. ivfpq fills a table of distances to code
    centroids for each cluster and adds an entry of it for each byte of each code; `rescore`
    compares the k neighbors once more.

    Args:
        index: the block of the config.
        n_entries: of the datastore.
        dim: of a key.
        k: neighbors.
    """
    compare = 2 * dim
    if index["engine"] not in INVERTED_FILES:
        return float(compare * n_entries)
    scanned = n_entries * index["n_probes"] / index["n_centroids"]
    again = compare * k if index["rescore"] else 0
    if index["engine"] == "ivf_flat":
        return compare * (index["n_centroids"] + scanned) + again
    tables = index["n_probes"] * compare * 2**CODE_BITS
    return compare * index["n_centroids"] + tables + scanned * index["code_bytes"] + again
