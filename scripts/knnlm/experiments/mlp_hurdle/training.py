"""The trainings of mlp_hurdle: every variant of one seed on one task; the curves are kept."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.experiments.mlp_hurdle.names import KIND, LOSS, VARIANTS
from knnlm.experiments.mlp_hurdle.tasks import Task
from knnlm.experiments.mlp_hurdle.variants import count_parameters, create_variant, variant_of
from knnlm.lm.training import Evaluation, Journal, Recipe, train
from knnlm.runtime.artifacts import atomic_path
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, each_missing, making

STATES = "states"  # folder of the trainings in progress


def train_variants(
    target: Target, task: Task, *, shape: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Train each variant on a task and write the curves; finished ones are not done again.

    The artifact (kind "mlp_hurdle_curves") has a file {variant}.parquet for each variant, with
    the columns step (finished updates), training_loss (mean since the row before), lr and, if
    the task has an evaluation, its metric after the step; losses and likelihoods in nats.

    Args:
        target: the artifact; its seed is that of weights and dropout.
        task: what is trained on.
        shape: of the full model, see `variant_of`.
        settings: the task's block of the config: updates, optimizer, schedule, clip_norm,
            precision, every (updates between two rows), save_every (between two states).

    Raises:
        ValueError: if a setting is impossible on this machine, or a loss is not finite.
    """
    seed = target.seed
    with making(
        target,
        kind=KIND,
        made_from=task.made_from,
        settings={"shape": dict(shape), "training": dict(settings), "seed": seed},
    ) as made:
        curves = {variant: made.folder / f"{variant}.parquet" for variant in VARIANTS}
        for variant in each_missing(curves, label="trainings", name="variants"):
            LOGGER.info("training %s", variant)
            states = made.folder / STATES / variant
            rows = _train(task, variant, shape=shape, settings=settings, seed=seed, states=states)
            with atomic_path(curves[variant]) as temporary:
                table = pd.DataFrame(rows).rename(columns={"loss": LOSS})
                table.to_parquet(temporary, index=False)
        shutil.rmtree(made.folder / STATES, ignore_errors=True)
        made.contents |= {
            "metric": task.metric,
            "scored": task.scored,
            "vocabulary_size": task.vocabulary,
            "variants": {variant: _described(shape, variant, task) for variant in VARIANTS},
        }


def _train(
    task: Task,
    variant: str,
    *,
    shape: Mapping[str, Any],
    settings: Mapping[str, Any],
    seed: int,
    states: Path,
) -> list[dict[str, float]]:
    network = create_variant(shape, variant, vocabulary_size=task.vocabulary, seed=seed)
    updates, every, evaluate = settings["updates"], settings["every"], task.evaluate
    evaluation = None
    if evaluate is not None:
        at = {*range(0, updates, every), updates}
        evaluation = Evaluation(lambda step: {task.metric: evaluate(network)}, at=at)
    recipe = {name: settings[name] for name in ("optimizer", "schedule", "clip_norm", "precision")}
    return train(
        task.wrap(network),
        Recipe(steps=updates, accumulation=1, seed=seed, **recipe),
        batch_at=task.batch_at,
        loss=task.loss,
        journal=Journal(
            states,
            save_every=settings["save_every"],
            log_every=every,
            tokens_per_update=task.tokens_per_update,
        ),
        evaluation=evaluation,
    )


def _described(shape: Mapping[str, Any], variant: str, task: Task) -> dict[str, Any]:
    """Return what the manifest says of a variant."""
    block = variant_of(shape, variant)
    parameters = count_parameters(shape, variant, vocabulary_size=task.vocabulary)
    return {name: block[name] for name in ("ffn_width", "without_mlp")} | {"parameters": parameters}
