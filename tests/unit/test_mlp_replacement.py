"""The replacement is the formula of the paper, its head is as set, and its training resumes."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from knnlm.lm.state import trained
from knnlm.lm.training import STATE
from knnlm.retrieval import mlp_replacement as module
from knnlm.retrieval.mlp_replacement import (
    HEADS,
    MlpReplacement,
    replacement_log_probs,
    train_on_pairs,
)
from knnlm.retrieval.pair_training import n_updates

V, D, HIDDEN = 11, 6, 24
SETTINGS = {
    "epochs": 3,
    "batch_size": 32,
    "accumulation": 1,
    "optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
    "clip_norm": None,
    "precision": "fp32",
    "save_every": 7,
    "buffer_mib": 1,
}


def lm_head():
    return torch.randn(V, D, generator=torch.Generator().manual_seed(1))


def replacement(head_setting="random", seed=0):
    return MlpReplacement(
        lm_head(), head_setting=head_setting, hidden=HIDDEN, activation="relu", seed=seed
    )


def task(n=320):
    generator = np.random.default_rng(2)
    keys = generator.standard_normal((n, D)).astype(np.float16)
    return keys, np.argmax(keys @ generator.standard_normal((D, V)), axis=1).astype(np.uint16)


def test_logits_are_the_formula_of_the_paper():
    net, z = replacement().eval(), torch.randn(5, D)

    hidden = functional.relu(z @ net.into.weight.T + net.into.bias)
    out = hidden @ net.out.weight.T + net.out.bias
    normed = (out - out.mean(1, keepdim=True)) / (
        out.var(1, unbiased=False, keepdim=True) + 1e-5
    ) ** 0.5
    expected = (z + normed) @ net.head.weight.T

    torch.testing.assert_close(net(z), expected)


@pytest.mark.parametrize("head_setting", HEADS)
def test_the_head_setting_says_what_w_is_and_what_it_costs(head_setting, tmp_path):
    net = replacement(head_setting)
    mlp = D * HIDDEN + HIDDEN + HIDDEN * D + D + 2 * D

    train_on_pairs(net, *task(), settings=SETTINGS, seed=0, partial=tmp_path)

    assert net.own_bytes == 4 * (mlp + (0 if head_setting == "lm_head_frozen" else V * D))
    assert torch.equal(net.head.weight, lm_head()) == (head_setting == "lm_head_frozen")
    assert "head.weight" in dict(trained(net)) or head_setting == "lm_head_frozen"


def test_the_head_starts_as_the_lms_and_the_mlp_alike_in_all_settings():
    nets = {name: replacement(name) for name in HEADS}

    assert torch.equal(nets["lm_head_trained"].head.weight, lm_head())
    assert not torch.equal(nets["random"].head.weight, lm_head())
    for net in nets.values():
        assert torch.equal(net.into.weight, nets["random"].into.weight)
        assert torch.equal(net.out.weight, nets["random"].out.weight)


def test_making_one_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()

    replacement()

    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns_what_the_keys_tell(tmp_path):
    net, (keys, values) = replacement(), task()
    before = replacement_log_probs(net.eval(), keys, values).mean()

    train_on_pairs(net, keys, values, settings=SETTINGS | {"epochs": 30}, seed=0, partial=tmp_path)

    assert before == pytest.approx(-np.log(V), abs=0.2)
    assert replacement_log_probs(net, keys, values).mean() > -0.7


def test_replacement_log_probs_are_those_of_a_log_softmax():
    net, (keys, values) = replacement().eval(), task(50)

    logits = net(torch.from_numpy(keys)).double()
    expected = logits.log_softmax(1)[torch.arange(50), torch.from_numpy(values.astype(np.int64))]

    np.testing.assert_allclose(
        replacement_log_probs(net, keys, values), expected.detach(), rtol=1e-6
    )


def test_a_training_that_stopped_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole, broken = replacement(), replacement()
    keys, values = task()
    rows = train_on_pairs(whole, keys, values, settings=SETTINGS, seed=0, partial=tmp_path / "a")

    def stop(*arguments):
        if len(calls) > 12:
            raise KeyboardInterrupt
        calls.append(arguments)
        return real(*arguments)

    calls, real = [], module._loss
    monkeypatch.setattr(module, "_loss", stop)
    with pytest.raises(KeyboardInterrupt):
        train_on_pairs(broken, keys, values, settings=SETTINGS, seed=0, partial=tmp_path / "b")
    assert (tmp_path / "b" / STATE).is_file()
    monkeypatch.setattr(module, "_loss", real)
    again = replacement(seed=5)  # its weights come from the state

    resumed = train_on_pairs(again, keys, values, settings=SETTINGS, seed=0, partial=tmp_path / "b")

    assert resumed == rows
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_updates_count_whole_batches_of_all_epochs_but_at_least_one():
    assert n_updates(100, epochs=2, batch_size=64) == 3
    assert n_updates(10, epochs=2, batch_size=64) == 1


def test_a_value_outside_the_vocabulary_is_an_error(tmp_path):
    keys, values = task()

    with pytest.raises(ValueError, match="below the vocabulary size 11, got 21"):
        train_on_pairs(
            replacement(), keys, values + 11, settings=SETTINGS, seed=0, partial=tmp_path
        )


def test_a_batch_that_accumulation_does_not_divide_is_an_error(tmp_path):
    settings = SETTINGS | {"accumulation": 5}

    with pytest.raises(ValueError, match="got 32 and 5"):
        train_on_pairs(replacement(), *task(), settings=settings, seed=0, partial=tmp_path)


def test_an_unknown_head_or_activation_is_an_error():
    with pytest.raises(ValueError, match="lm_head_frozen, lm_head_trained, random, got lm"):
        MlpReplacement(lm_head(), head_setting="lm", hidden=4, activation="relu", seed=0)
    with pytest.raises(ValueError, match="unknown activation rel"):
        MlpReplacement(lm_head(), head_setting="random", hidden=4, activation="rel", seed=0)
