"""Anatomy of a decoder: where the last block's parts are, and the hidden states between them.

The last block adds attention and then an MLP to the residual stream. With r the stream before
the MLP's layer norm, in the words of Chiang et al. (2024):

    g(r) = r + MLP(norm(r))        the last MLP with its norm and its residual
    f(s) = head(final_norm(s))     the output layer
    logits = f(g(r))               key of the datastore = norm(r), not r itself

The key alone does not determine the logits: the residual bypasses the norm.
"""

from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

FFN_INPUT_BEFORE = "ffn_input_before_layer_norm"
FFN_INPUT_AFTER = "ffn_input_after_layer_norm"
OUTPUT_AFTER = "output_after_layer_norm"


@dataclass(frozen=True)
class Architecture:
    """Names of the parts of one family of models, as its modules have them."""

    backbone: str
    layers: str
    attention_norm: str
    mlp_norm: str
    mlp: str
    final_norm: str


_LLAMA = Architecture(
    backbone="model",
    layers="layers",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    final_norm="norm",
)
ARCHITECTURES = MappingProxyType(  # by `model_type` of the model's config
    {
        "gpt2": Architecture(
            backbone="transformer",
            layers="h",
            attention_norm="ln_1",
            mlp_norm="ln_2",
            mlp="mlp",
            final_norm="ln_f",
        ),
        "llama": _LLAMA,
        "mistral": _LLAMA,
    }
)


@dataclass(frozen=True)
class Site:
    """A place in the last block: before or after one of its three norms."""

    norm: str  # a field of `Architecture`
    after: bool


# The sites of Khandelwal et al. (2020), Table 5, in the order in which a forward pass meets them.
SITES = MappingProxyType(
    {
        "attention_input_before_layer_norm": Site("attention_norm", after=False),
        "attention_input_after_layer_norm": Site("attention_norm", after=True),
        FFN_INPUT_BEFORE: Site("mlp_norm", after=False),
        FFN_INPUT_AFTER: Site("mlp_norm", after=True),
        "output_before_layer_norm": Site("final_norm", after=False),
        OUTPUT_AFTER: Site("final_norm", after=True),
    }
)


class _Enough(Exception):  # noqa: N818 (it stops a forward pass, it is no error)
    """Raised by the hook at the last site asked for."""


def architecture(model: nn.Module) -> Architecture:
    """Return the names of the model's parts.

    Raises:
        ValueError: if the family is not in the table.
    """
    return architecture_of(model.config.model_type)


def architecture_of(model_type: str) -> Architecture:
    """Return the names of the parts of the models of one type, such as "gpt2".

    Raises:
        ValueError: if the type is not in the table.
    """
    if model_type not in ARCHITECTURES:
        raise ValueError(
            f"expected a model of type {', '.join(ARCHITECTURES)}, got {model_type}; add its "
            "parts to the table in scripts/knnlm/lm/anatomy.py"
        )
    return ARCHITECTURES[model_type]


def _backbone(model: nn.Module) -> nn.Module:
    return getattr(model, architecture(model).backbone)


def _last_block(model: nn.Module) -> nn.Module:
    return getattr(_backbone(model), architecture(model).layers)[-1]


def _norm(model: nn.Module, name: str) -> nn.Module:
    holder = _backbone(model) if name == "final_norm" else _last_block(model)
    return getattr(holder, getattr(architecture(model), name))


def require_sites(sites: Collection[str]) -> None:
    """Check that sites are known, and that there is one.

    Raises:
        ValueError: naming the first unknown site and all known ones.
    """
    for site in sites:
        if site not in SITES:
            raise ValueError(f"unknown site {site}; expected one of {', '.join(SITES)}")
    if not sites:
        raise ValueError(f"expected at least one site of {', '.join(SITES)}, got none")


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
    """Return the longest sequence of tokens that the model can read."""
    return model.config.max_position_embeddings
