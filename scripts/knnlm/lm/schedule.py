"""Learning rates as pure functions of the step, and what a longer training can share.

Nothing here needs torch, so the workflow can ask cheaply whether one model's training may
continue another's.
"""

import math
from typing import Any

TRUNK_KEYS_THAT_MAY_DIFFER = ("extends", "training")


def learning_rate(step: int, *, schedule: dict[str, Any], lr: float, steps: int) -> float:
    """Return the learning rate of one update.

    linear, cosine: `warmup_steps` updates up to `lr`, then constant, then down to (almost) 0
    over the last `decay_share` of all updates; a share of 1 has no constant part.

    cosine_restarts: fairseq's `cosine` scheduler, with which Khandelwal et al. (2020) trained:
    from `warmup_lr` up to `lr`, then half cosines from `lr` down to `min_lr`, the first over
    `period` updates, each `period_factor` times longer than the one before and both ends of it
    `lr_shrink` times lower. It does not depend on `steps`.

    Args:
        step: number of the update, from 0.
        schedule: the block of the config.
        lr: the highest learning rate.
        steps: number of updates of the whole training.

    Raises:
        ValueError: if the schedule's name is unknown.
    """
    if schedule["name"] == "cosine_restarts":
        return _with_restarts(step, schedule=schedule, lr=lr)
    if schedule["name"] not in ("linear", "cosine"):
        raise ValueError(
            f"unknown schedule {schedule['name']}; expected linear, cosine or cosine_restarts"
        )
    warmup = schedule["warmup_steps"]
    if step < warmup:
        return lr * (step + 1) / warmup
    begin = decay_begin(schedule, steps)
    if step < begin:
        return lr
    progress = (step - begin) / (steps - begin)
    if schedule["name"] == "linear":
        return lr * (1.0 - progress)
    return lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def decay_begin(schedule: dict[str, Any], steps: int) -> int:
    """Return the first update of the decay of a linear or cosine schedule."""
    return max(schedule["warmup_steps"], steps - round(schedule["decay_share"] * steps))


def _with_restarts(step: int, *, schedule: dict[str, Any], lr: float) -> float:
    warmup = schedule["warmup_steps"]
    if step < warmup:
        low = schedule["warmup_lr"]
        return low + (lr - low) * step / warmup
    place, period, shrink = step - warmup, schedule["period"], 1.0
    while place >= period:
        place -= period
        period *= schedule["period_factor"]
        shrink *= schedule["lr_shrink"]
    low, high = schedule["min_lr"] * shrink, lr * shrink
    return low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * place / period))


def updates(model: dict[str, Any]) -> int:
    """Return the number of updates that a model's token budget pays for.

    An update reads `batch_size` x `accumulation` sequences of `context` tokens, on however many
    processes.
    """
    training = model["training"]
    return training["tokens"] // tokens_per_update(model)


def tokens_per_update(model: dict[str, Any]) -> int:
    """Return how many tokens one update reads."""
    training = model["training"]
    return training["batch_size"] * training["accumulation"] * model["context"]


def trunk_step(model: dict[str, Any]) -> int | None:
    """Return the number of updates after which training no longer serves a longer one.

    Up to there nothing depends on the length of the training: the decay of a linear or cosine
    schedule begins; with restarts it is the end. None: it depends on the length from the start,
    the training may stop before it gets there, or it starts from the weights of another model.
    """
    if model["training"]["early_stopping"] is not None or "starts_from" in model:
        return None
    schedule, steps = model["training"]["schedule"], updates(model)
    if schedule["name"] == "cosine_restarts":
        return steps
    begin = decay_begin(schedule, steps)
    return begin if schedule["decay_share"] < 1 and begin < steps else None


def can_continue(base: dict[str, Any], longer: dict[str, Any]) -> bool:
    """Return whether training `longer` may start from the trunk of `base`, to the same end.

    Args:
        base: the block of a model, complete.
        longer: the block of another; only `training.tokens` (more) and `extends` may differ.
    """
    if "training" not in base or "training" not in longer:
        return False
    more = longer["training"]["tokens"] > base["training"]["tokens"]
    return more and trunk_step(base) is not None and _but_tokens(base) == _but_tokens(longer)


def _but_tokens(model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    outside = {key: model[key] for key in model if key not in TRUNK_KEYS_THAT_MAY_DIFFER}
    inside = {key: model["training"][key] for key in model["training"] if key != "tokens"}
    return outside, inside
