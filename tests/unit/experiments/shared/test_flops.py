"""Counted FLOPs are those of the matrix products, two for each multiplication and addition."""

import pytest
import torch
from lm_artifacts import MODEL, VOCABULARY
from torch import nn

from knnlm.experiments.shared.flops import (
    forward_flops,
    update_flops,
    window,
    without_data,
)
from knnlm.lm.model import create_model

LENGTH = 8


def model(**changes):
    return create_model(MODEL | changes, vocabulary_size=VOCABULARY, seed=0)


def by_hand():
    """Return the FLOPs of reading one window: projections, MLPs and head, then attention."""
    d, layers, hidden = MODEL["width"], MODEL["layers"], MODEL["ffn_width"]
    matrices = layers * (4 * d * d + 2 * d * hidden) + d * VOCABULARY
    attention = layers * 2 * LENGTH * d  # scores, and their product with the values
    return 2 * LENGTH * (matrices + attention)


def test_a_window_costs_the_products_of_its_matrices_and_of_its_attention():
    assert forward_flops(without_data(model()), **window(LENGTH)) == by_hand()


def test_an_update_costs_three_forward_passes():
    assert update_flops(without_data(model()), **window(LENGTH)) == 3 * by_hand()


def test_a_layer_without_its_mlp_costs_less():
    d, hidden = MODEL["width"], MODEL["ffn_width"]

    found = forward_flops(without_data(model(without_mlp=[-1])), **window(LENGTH))

    assert found == by_hand() - 2 * LENGTH * 2 * d * hidden


@pytest.mark.parametrize(("frozen", "products"), [((), 5), (("0",), 4), (("2",), 4)])
def test_a_frozen_matrix_needs_no_gradient_of_its_own(frozen, products):
    layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    for name in frozen:
        getattr(layers, name).requires_grad_(False)

    # Two forward, two for the matrices, and one for the input of the second, which is not needed
    # if the first matrix is frozen.
    expected = (products - (frozen == ("0",))) * 2 * 4 * 4
    assert update_flops(without_data(layers), torch.empty(1, 4, device="meta")) == expected


def test_a_copy_without_data_leaves_the_module_and_its_shared_weights_as_they_are():
    lm = model(tied_embeddings=True)

    hollow = without_data(lm)

    assert {p.device.type for p in hollow.parameters()} == {"meta"}
    assert {p.device.type for p in lm.parameters()} == {"cpu"}
    assert hollow.lm_head.weight is hollow.transformer.wte.weight
    assert all(block.attn.fused for block in lm.transformer.h)
