"""The models of mlp_hurdle: one with every MLP, and three in which one MLP is left out.

Chiang et al. (2024), Appendix E.1, compare the first two. The others ask what the difference is
made of: whether it must be the last MLP, and whether it is only fewer parameters.
"""

from collections.abc import Mapping
from typing import Any

import torch

from knnlm.experiments.mlp_hurdle.names import FULL, MATCHED, WITHOUT_MIDDLE
from knnlm.lm.gpt2 import LanguageModel
from knnlm.lm.model import create_model


def variant_of(shape: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Return the block for `create_model` of a variant.

    Args:
        shape: of the full model: layers, width, heads, ffn_width, context, activation,
            tied_embeddings, dropout.
        variant: one of `VARIANTS`.

    Raises:
        ValueError: if the last MLP is the only one.
    """
    if shape["layers"] < 2:
        raise ValueError(
            f"expected mlp_hurdle.shape to have at least 2 layers, got {shape['layers']}; the "
            "control leaves out an MLP that is not the last"
        )
    last = shape["layers"] - 1
    left_out = {FULL: [], WITHOUT_MIDDLE: [(last - 1) // 2]}.get(variant, [last])
    width = matched_ffn_width(shape) if variant == MATCHED else shape["ffn_width"]
    return {**shape, "ffn_width": width, "without_mlp": left_out}


def matched_ffn_width(shape: Mapping[str, Any]) -> int:
    """Return the hidden size that gives the MLPs but the last the parameters of all of them.

    An MLP of hidden size h has h (2 d + 1) parameters that grow with h, and 3 d that do not: its
    second bias and the two vectors of its norm.
    """
    layers, d, h = shape["layers"], shape["width"], shape["ffn_width"]
    left_out = h * (2 * d + 1) + 3 * d
    return h + round(left_out / ((layers - 1) * (2 * d + 1)))


def create_variant(
    shape: Mapping[str, Any],
    variant: str,
    *,
    vocabulary_size: int,
    seed: int,
) -> LanguageModel:
    """Return a variant with random weights; all variants of a seed share what has one shape.

    So two curves of a seed differ by the variant alone, as far as that is possible: wider MLPs
    have weights of their own.

    Args:
        shape: of the full model.
        variant: one of `VARIANTS`.
        vocabulary_size: V.
        seed: of the weights.
    """
    named = {"vocabulary_size": vocabulary_size, "seed": seed}
    network = create_model(variant_of(shape, variant), **named)
    if variant == MATCHED:
        own = network.state_dict()
        full = create_model(variant_of(shape, FULL), **named).state_dict()
        shared = {
            name: weight
            for name, weight in full.items()
            if name in own and own[name].shape == weight.shape
        }
        network.load_state_dict(shared, strict=False)
    return network


def count_parameters(shape: Mapping[str, Any], variant: str, *, vocabulary_size: int) -> int:
    """Return the number of parameters of a variant, tied ones once, without making it."""
    with torch.device("meta"):
        network = create_model(variant_of(shape, variant), vocabulary_size=vocabulary_size, seed=0)
    return sum(parameter.numel() for parameter in network.parameters())
