"""The loop does what plain PyTorch would do, and a killed run ends in the same bytes."""

import math
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import knnlm.lm.process
import knnlm.lm.training
from knnlm.lm.early_stopping import BEST, EarlyStopping
from knnlm.lm.optimizer import create_optimizer
from knnlm.lm.state import load_state
from knnlm.lm.training import STATE, Evaluation, Journal, Recipe, train
from knnlm.runtime.artifacts import ArtifactError

SCRIPTS = Path(__file__).parents[2] / "scripts"
ADAMW = {"name": "adamw", "lr": 0.02, "betas": [0.9, 0.98], "weight_decay": 0.1}
RECIPE = Recipe(
    steps=12,
    optimizer=ADAMW,
    schedule={"name": "linear", "warmup_steps": 2, "decay_share": 0.5},
    clip_norm=0.5,
    precision="fp32",
    accumulation=1,
    seed=0,
)


def network(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(5, 8), nn.LayerNorm(8), nn.Dropout(dropout), nn.Linear(8, 1, bias=False)
        )


def batch_at(number):
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(6, 5, generator=generator)
    return {"inputs": inputs, "targets": inputs.sum(1, keepdim=True).sin()}


def loss(module, batch):
    return functional.mse_loss(module(batch["inputs"]), batch["targets"])


def run(folder, module=None, recipe=RECIPE, evaluation=None, **kept):
    module = network() if module is None else module
    journal = Journal(folder, save_every=5, log_every=4, **kept)
    rows = train(
        module, recipe, batch_at=batch_at, loss=loss, journal=journal, evaluation=evaluation
    )
    return module, rows


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_loop_is_the_textbook_loop(tmp_path):
    expected = network()
    groups = [
        {"params": [p for p in expected.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in expected.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    rates = [0.01, 0.02, 0.02, 0.02, 0.02, 0.02, *(0.02 * i / 6 for i in (6, 5, 4, 3, 2, 1))]
    losses = []
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = loss(expected, batch_at(step))
        value.backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())

    actual, rows = run(tmp_path)

    for one, other in zip(actual.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert [row["step"] for row in rows] == [4, 8, 12]
    means = np.reshape(losses, (3, 4)).mean(1)
    np.testing.assert_allclose([row["loss"] for row in rows], means, rtol=1e-5)
    np.testing.assert_allclose([row["lr"] for row in rows], [rates[3], rates[7], rates[11]])


def test_accumulation_is_one_larger_batch(tmp_path):
    def larger(number):
        parts = [batch_at(2 * number), batch_at(2 * number + 1)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    one, other = network(), network()

    train(
        one,
        replace(RECIPE, accumulation=2),
        batch_at=batch_at,
        loss=loss,
        journal=Journal(tmp_path / "a", save_every=99, log_every=99),
    )
    journal = Journal(tmp_path / "b", save_every=99, log_every=99)
    train(other, RECIPE, batch_at=larger, loss=loss, journal=journal)

    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam", "nesterov", "muon"])
@pytest.mark.parametrize("stop", [5, 7, 10])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(tmp_path, name, stop):
    optimizer = {**ADAMW, "name": name, "momentum": 0.9}
    recipe = replace(RECIPE, optimizer=optimizer, accumulation=2)
    expected, expected_rows = run(tmp_path / "whole", network(dropout=0.5), recipe)

    def fail(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", network(dropout=0.5), recipe, Evaluation(fail, at=[stop]))
    actual, rows = run(tmp_path / "cut", network(dropout=0.5), recipe)

    assert (tmp_path / "cut" / STATE).is_file()
    assert same(actual, expected)
    assert rows == expected_rows


def test_a_longer_training_goes_on_from_a_kept_state(tmp_path):
    longer = replace(RECIPE, steps=20)
    expected, expected_rows = run(tmp_path / "whole", recipe=longer)
    run(tmp_path / "base", keep_state_at={6: tmp_path / "trunk"})

    actual, rows = run(tmp_path / "longer", recipe=longer, start=tmp_path / "trunk")

    assert same(actual, expected)
    assert rows == expected_rows


def test_states_are_the_same_bytes_in_every_run(tmp_path):
    for name in "ab":
        run(tmp_path / name, network(dropout=0.3))

    assert (tmp_path / "a" / STATE).read_bytes() == (tmp_path / "b" / STATE).read_bytes()


def test_evaluations_join_the_log_and_see_the_module_in_eval_mode(tmp_path):
    module = network(dropout=0.5)

    def evaluate(step):
        assert not module.training
        assert not torch.is_grad_enabled()
        return {"norm": float(step)}

    _, rows = run(tmp_path, module, evaluation=Evaluation(evaluate, at=[0, 3, 12]))

    assert [row["step"] for row in rows] == [0, 3, 4, 8, 12]
    assert [row.get("norm") for row in rows] == [0.0, 3.0, None, None, 12.0]
    assert math.isnan(rows[0]["loss"])
    assert not module.training


def falling_to(*values):
    """An evaluation every two updates, whose metric takes these values."""
    return Evaluation(
        lambda step: {"nll": values[step // 2 - 1]}, range(2, 13, 2), EarlyStopping("nll", 2)
    )


@pytest.mark.parametrize(
    ("values", "best", "last"),
    [
        ((3.0, 2.0, 2.5, 2.0), 4, 8),  # a tie is not lower
        ((3.0, 2.0, 2.5, 1.0, 1.5, 1.2), 8, 12),
        ((6.0, 5.0, 4.0, 3.0, 2.0, 1.0), 12, 12),
    ],
)
def test_a_training_stops_when_its_patience_ends_and_leaves_the_best(tmp_path, values, best, last):
    expected, _ = run(tmp_path / "all", keep_state_at={best: tmp_path / "expected"})
    load_state(tmp_path / "expected", expected, create_optimizer(expected, ADAMW))

    module, rows = run(tmp_path / "early", evaluation=falling_to(*values))

    assert same(module, expected)
    assert not module.training
    assert rows[-1]["step"] == last


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_kill_changes_nothing_of_what_early_stopping_leaves(tmp_path, stop):
    values = (3.0, 2.0, 2.5, 2.2)
    expected, expected_rows = run(tmp_path / "whole", evaluation=falling_to(*values))
    asked = falling_to(*values)

    def fail_at(number):
        if number == stop:
            raise KeyboardInterrupt
        return batch_at(number)

    journal = Journal(tmp_path / "cut", save_every=3, log_every=4)
    how = {"loss": loss, "journal": journal, "evaluation": asked}
    with suppress(KeyboardInterrupt):
        train(network(), RECIPE, batch_at=fail_at, **how)
    module = network()
    rows = train(module, RECIPE, batch_at=batch_at, **how)

    assert same(module, expected)
    assert rows == expected_rows
    best = (tmp_path / "cut" / BEST).read_bytes()
    assert best == (tmp_path / "whole" / BEST).read_bytes()


def test_the_global_random_state_is_left_as_it_was(tmp_path):
    before = torch.get_rng_state()

    run(tmp_path, network(dropout=0.5))

    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_depends_on_the_seed(tmp_path):
    one, _ = run(tmp_path / "a", network(dropout=0.5))
    other, _ = run(tmp_path / "b", network(dropout=0.5), replace(RECIPE, seed=1))

    assert not same(one, other)


def test_frozen_parameters_stay_as_they_are(tmp_path):
    module = network()
    module[0].requires_grad_(False)

    run(tmp_path, module)

    assert same(module[0], network()[0])
    assert not same(module[3], network()[3])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_on_a_cpu_is_refused(tmp_path, precision):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")

    with pytest.raises(ValueError, match=f"precision {precision} needs a GPU: .* fp32"):
        run(tmp_path, recipe=replace(RECIPE, precision=precision))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp8"}, "unknown precision fp8; expected fp32, bf16, fp16"),
        ({"optimizer": {**ADAMW, "name": "lion"}}, "unknown optimizer lion; expected adamw"),
    ],
)
def test_unknown_names_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, recipe=replace(RECIPE, **change))


def test_a_module_with_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to train"):
        run(tmp_path, network().requires_grad_(False))


def test_a_loss_that_is_not_finite_is_named_with_its_update(tmp_path):
    def broken(module, batch):
        value = loss(module, batch)
        broken.calls += 1
        return value * (math.inf if broken.calls == 3 else 1.0)

    broken.calls = 0
    with pytest.raises(ValueError, match=r"loss of update 3 is inf; lower optimizer\.lr"):
        train(
            network(),
            RECIPE,
            batch_at=batch_at,
            loss=broken,
            journal=Journal(tmp_path, save_every=5, log_every=4),
        )
    assert not (tmp_path / STATE).exists()


def test_a_truncated_state_is_refused_with_its_name(tmp_path):
    run(tmp_path)
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[: len(content) // 2])

    with pytest.raises(ArtifactError, match=rf"{STATE} is not a state of this training"):
        run(tmp_path)


def test_the_state_of_another_model_is_refused(tmp_path):
    run(tmp_path)

    with pytest.raises(ArtifactError, match="is not a state of this training"):
        run(tmp_path, nn.Sequential(nn.Linear(5, 1)))


ONE_OF_TWO_PROCESSES = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from knnlm.lm.process import this_process
from tests.unit.test_training import RECIPE, network, replace, run

folder = Path(sys.argv[1])
module, _ = run(folder, network(dropout=0.5), replace(RECIPE, accumulation=4))
assert this_process().num_processes == 2
if this_process().is_main_process:
    save_file(dict(module.named_parameters()), folder / "end")
this_process().destroy_process_group()
"""


def launch_two(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machine = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO_PROCESSES, str(folder)],
            env={**os.environ, **machine, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [process.communicate(timeout=120)[1] for process in processes]


def test_two_processes_train_the_same_model_as_one(tmp_path):
    expected, _ = run(tmp_path / "one", network(dropout=0.5), replace(RECIPE, accumulation=4))
    (tmp_path / "two").mkdir()

    errors = launch_two(tmp_path / "two")

    assert (tmp_path / "two" / "end").is_file(), errors
    found = load_file(tmp_path / "two" / "end")
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-4, atol=1e-6)


def test_processes_that_cannot_share_an_update_are_refused(tmp_path, monkeypatch):
    machine = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr(knnlm.lm.process, "this_process", lambda: machine)

    with pytest.raises(ValueError, match="accumulation that 2 processes can share evenly, got 3"):
        run(tmp_path, recipe=replace(RECIPE, accumulation=3))
