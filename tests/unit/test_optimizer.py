"""Optimizers make the updates of those that they are named after."""

import torch
from lm_artifacts import MODEL
from torch import nn

from knnlm.lm.model import create_model
from knnlm.lm.optimizer import create_optimizer


def fairseq_nag(parameters, gradients, *, rates, momentum):
    """The updates of fairseq's `nag`, whose buffer holds the learning rate."""
    buffer, last = torch.zeros_like(parameters), rates[0]
    for gradient, rate in zip(gradients, rates, strict=True):
        correction = rate / last
        parameters = parameters + momentum * momentum * correction * buffer
        parameters = parameters - (1 + momentum) * rate * gradient
        buffer = momentum * correction * buffer - rate * gradient
        last = rate
    return parameters


def test_nesterov_makes_the_updates_of_fairseq():
    module = nn.Linear(3, 2, bias=False)
    rates, gradients = [0.1, 0.3, 0.2, 0.05], torch.randn(4, 2, 3)
    expected = fairseq_nag(module.weight.detach(), gradients, rates=rates, momentum=0.9)
    settings = {"name": "nesterov", "lr": 1.0, "momentum": 0.9, "weight_decay": 0.0}
    optimizer = create_optimizer(module, settings)

    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        module.weight.grad = gradient.clone()
        optimizer.step()

    torch.testing.assert_close(module.weight.detach(), expected)


def test_muon_moves_the_matrices_between_hidden_states_and_adamw_all_else():
    settings = {"name": "muon", "lr": 0.02, "momentum": 0.9, "betas": [0.9, 0.98]}
    settings["weight_decay"] = 0.1
    model, expected = (create_model(MODEL, vocabulary_size=11, seed=0) for _ in range(2))
    hidden = [p for name, p in expected.named_parameters() if ".c_" in name and p.ndim == 2]
    rest = [p for p in expected.parameters() if not any(p is matrix for matrix in hidden)]
    assert [p.ndim for p in rest].count(2) == 2  # the embeddings of tokens, tied, and positions
    groups = [
        {"params": [p for p in rest if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0},
    ]
    step = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
    parts = (torch.optim.Muon(hidden, **step), torch.optim.AdamW(groups, 0.02, (0.9, 0.98)))
    optimizer = create_optimizer(model, settings)

    for seed in range(3):
        torch.manual_seed(seed)
        for one, other in zip(model.parameters(), expected.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for group in (g for part in (optimizer, *parts) for g in part.param_groups):
            group["lr"] = 0.02 / (1 + seed)
        for part in (optimizer, *parts):
            part.step()

    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
