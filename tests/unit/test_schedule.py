"""Schedules follow their formulas, and a trunk is what two lengths of training share."""

import math
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from knnlm.lm.schedule import can_continue, decay_begin, learning_rate, trunk_step, updates

SCRIPTS = Path(__file__).parents[2] / "scripts"
LINEAR = {"name": "linear", "warmup_steps": 4, "decay_share": 0.5}
COSINE = {**LINEAR, "name": "cosine"}
PUBLISHED = {  # fairseq: --warmup-updates --warmup-init-lr --lr --lr-period-updates --t-mult
    "name": "cosine_restarts",
    "warmup_steps": 16_000,
    "warmup_lr": 1e-7,
    "min_lr": 1e-4,
    "period": 270_000,
    "period_factor": 2,
    "lr_shrink": 0.75,
}


def rates(schedule, steps, lr=1.0):
    return [learning_rate(s, schedule=schedule, lr=lr, steps=steps) for s in range(steps)]


def test_linear_warms_up_stays_and_comes_down_in_equal_steps():
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    expected += [1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]

    assert rates(LINEAR, 16) == pytest.approx(expected)


def test_cosine_comes_down_along_half_a_cosine():
    expected = [0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]

    assert rates(COSINE, 16)[8:] == pytest.approx(expected)


def test_a_decay_share_of_one_leaves_no_constant_part():
    plain = {**LINEAR, "decay_share": 1.0}

    assert rates(plain, 8) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_without_warm_up_the_first_update_has_the_full_rate():
    assert rates({**LINEAR, "warmup_steps": 0}, 4) == pytest.approx([1.0, 1.0, 1.0, 0.5])


def fairseq_cosine(num_updates, *, lr, s):
    """The scheduler of fairseq (CosineLRSchedule.step_update), as it is written there."""
    if num_updates < s["warmup_steps"]:
        return s["warmup_lr"] + num_updates * (lr - s["warmup_lr"]) / s["warmup_steps"]
    curr, t_mult, period = num_updates - s["warmup_steps"], s["period_factor"], s["period"]
    if t_mult != 1:
        i = math.floor(math.log(1 - curr / period * (1 - t_mult), t_mult))
        t_i = t_mult**i * period
        t_curr = curr - (1 - t_mult**i) / (1 - t_mult) * period
    else:
        i = math.floor(curr / period)
        t_i = period
        t_curr = curr - period * i
    shrink = s["lr_shrink"] ** i
    low, high = s["min_lr"] * shrink, lr * shrink
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * t_curr / t_i))


@given(step=st.integers(0, 5_000_000), factor=st.sampled_from([1, 2]))
def test_restarts_follow_the_formula_of_fairseq(step, factor):
    schedule = {**PUBLISHED, "period_factor": factor}
    place = (step - 16_000) / 270_000
    on_a_border = step >= 16_000 and math.isclose(math.log2(place + 1) % 1, 0, abs_tol=1e-9)
    assume(factor == 1 or not on_a_border)  # fairseq's logarithm may fall on either side

    actual = learning_rate(step, schedule=schedule, lr=1.0, steps=286_000)

    assert actual == pytest.approx(fairseq_cosine(step, lr=1.0, s=schedule), rel=1e-9)


def test_each_restart_is_lower_and_longer():
    short = {**PUBLISHED, "warmup_steps": 0, "period": 4, "min_lr": 0.0}

    found = rates(short, 14)

    assert found[0] == pytest.approx(1.0)
    assert found[4] == pytest.approx(0.75)
    assert found[12] == pytest.approx(0.75**2)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="unknown schedule steps; expected linear, cosine or"):
        learning_rate(0, schedule={"name": "steps"}, lr=1.0, steps=3)


def block(tokens, schedule=LINEAR):
    training = {"tokens": tokens, "batch_size": 2, "accumulation": 3, "schedule": schedule}
    training["early_stopping"] = None
    return deepcopy({"layers": 1, "context": 10, "training": training})


def test_a_token_budget_buys_whole_updates():
    assert updates(block(1_259)) == 20


@pytest.mark.parametrize("schedule", [LINEAR, COSINE, PUBLISHED])
def test_up_to_the_trunk_a_longer_training_has_the_same_rates(schedule):
    base, longer = block(1_200, schedule), block(6_000, schedule)
    shared = trunk_step(base)

    assert shared > 4
    assert can_continue(base, longer)
    assert rates(schedule, updates(base))[:shared] == rates(schedule, updates(longer))[:shared]
    assert shared <= trunk_step(longer)


def test_the_trunk_ends_where_the_decay_begins():
    assert trunk_step(block(1_200)) == decay_begin(LINEAR, 20) == 10
    assert trunk_step(block(1_200, PUBLISHED)) == 20


def test_a_plain_decay_has_no_trunk():
    plain = {**LINEAR, "decay_share": 1.0}

    assert trunk_step(block(1_200, plain)) is None
    assert not can_continue(block(1_200, plain), block(2_400, plain))


def test_a_training_that_may_stop_early_has_no_trunk():
    early = block(1_200)
    early["training"]["early_stopping"] = {"patience": 3}

    assert trunk_step(early) is None


def test_what_starts_from_the_weights_of_another_shares_no_trunk():
    started = block(1_200) | {"starts_from": "base"}
    longer = block(2_400) | {"starts_from": "base"}

    assert trunk_step(started) is None
    assert not can_continue(block(1_200), longer)
    assert not can_continue(started, longer)


@pytest.mark.parametrize("tokens", [600, 1_200])
def test_only_more_tokens_continue_a_training(tokens):
    assert not can_continue(block(1_200), block(tokens))


def test_a_model_that_differs_elsewhere_cannot_continue():
    wider, faster = block(2_400), block(2_400)
    wider["layers"] = 2
    faster["training"]["batch_size"] = 4

    assert not can_continue(block(1_200), wider)
    assert not can_continue(block(1_200), faster)


def test_the_note_on_what_is_extended_does_not_matter():
    assert can_continue(block(1_200), {**block(2_400), "extends": "base"})


def test_the_schedule_imports_no_torch():
    code = "import sys; import knnlm.lm.schedule; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, check=False).returncode == 0
