"""Anatomy of a decoder: where the last block's parts are, and the hidden states between them.

The last block adds attention and then an MLP to the residual stream. With r the stream before
the MLP's layer norm, in the words of Chiang et al. (2024):

    g(r) = r + MLP(norm(r))        the last MLP with its norm and its residual
    f(s) = head(final_norm(s))     the output layer
    logits = f(g(r))               key of the datastore = norm(r), not r itself

The key alone does not determine the logits: the residual bypasses the norm.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from knnlm.lm.architecture import (
    CONTEXT,
    SITES,
    Architecture,
    architecture_of,
    require_sites,
)


class _Enough(Exception):  # noqa: N818 (it stops a forward pass, it is no error)
    """Raised by the hook at the last site asked for."""


def architecture(model: nn.Module) -> Architecture:
    """Return the names of the model's parts.

    Raises:
        ValueError: if the family is not in the table.
    """
    return architecture_of(model.config.model_type)


def _backbone(model: nn.Module) -> nn.Module:
    return getattr(model, architecture(model).backbone)


def _last_block(model: nn.Module) -> nn.Module:
    return getattr(_backbone(model), architecture(model).layers)[-1]


def _norm(model: nn.Module, name: str) -> nn.Module:
    holder = _backbone(model) if name == "final_norm" else _last_block(model)
    return getattr(holder, getattr(architecture(model), name))


@torch.no_grad()
def capture(model: nn.Module, input_ids: Tensor, sites: Collection[str]) -> dict[str, Tensor]:
    """Return hidden states of the last block, and compute nothing behind the last one asked for.

    Args:
        model: in eval mode.
        input_ids: (B, T) int64, without padding.
        sites: names from `SITES`.

    Returns:
        (B, T, d) for each site, in the model's dtype.

    Raises:
        ValueError: if a site or the architecture is unknown.
    """
    require_sites(sites)
    wanted = [name for name in SITES if name in sites]
    found: dict[str, Tensor] = {}
    hooks = [_watch(model, name, found, stop=name == wanted[-1]) for name in wanted]
    try:
        _backbone(model)(input_ids, use_cache=False)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in sites}


def _watch(
    model: nn.Module, name: str, found: dict[str, Tensor], *, stop: bool
) -> torch.utils.hooks.RemovableHandle:
    def keep(state: Tensor) -> None:
        found[name] = state
        if stop:
            raise _Enough

    norm = _norm(model, SITES[name].norm)
    if SITES[name].after:
        return norm.register_forward_hook(lambda module, inputs, output: keep(output))
    return norm.register_forward_pre_hook(lambda module, inputs: keep(inputs[0]))


def apply_g(model: nn.Module, residual: Tensor) -> Tensor:
    """Return the stream after the last MLP, its norm and its residual: r + MLP(norm(r)).

    Args:
        model: in eval mode.
        residual: (..., d), as captured at `ffn_input_before_layer_norm`.

    Returns:
        (..., d), as captured at `output_before_layer_norm`.
    """
    mlp = getattr(_last_block(model), architecture(model).mlp)
    return residual + mlp(_norm(model, "mlp_norm")(residual))


def apply_f(model: nn.Module, stream: Tensor) -> Tensor:
    """Return the logits (..., V) of a stream (..., d) that has passed the last block."""
    return model.get_output_embeddings()(final_norm(model)(stream))


def final_norm(model: nn.Module) -> nn.Module:
    """Return the layer norm between the last block and the head."""
    return _norm(model, "final_norm")


def head_weight(model: nn.Module) -> Tensor:
    """Return the head's matrix (V, d); its product with the normed stream gives the logits."""
    return model.get_output_embeddings().weight


def width(model: nn.Module) -> int:
    """Return d, the length of a hidden state."""
    return model.config.hidden_size


def context(model: nn.Module) -> int:
    """Return the tokens of a window: what the config asks for, or all that the model can read."""
    return getattr(model.config, CONTEXT, model.config.max_position_embeddings)
