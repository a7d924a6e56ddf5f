"""The tables of a hosted model on Macondo-Conv, in the form of those of a local one."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.shared.chat_names import LOSS, METHODS, SCORED
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.town_tables import (
    ratio_with_interval,
    seeds_and_mean,
    villager_bootstrap,
)
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.runtime.places import places
from knnlm.text.macondo.conversations import KIND as CONVERSATIONS
from knnlm.text.macondo.conversations import read_conversations

EXPERIMENT = "conversational_hosted"
KIND = "hosted_fine_tuning"
ASSUMED_TOKENS = 3  # of an answer: the name, the full stop and the token that ends it

Losses = dict[tuple[str, str], dict[int, NDArray[np.float64]]]


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the answers and of the last epoch, and the losses over epochs.

    Args:
        inputs: conversations of each seed; fine_tuned: of each seed, once for train and once for
            test as what was trained on.
        settings: experiment_seeds, conversational_hosted.

    Returns:
        table and curves, tidy, the second with the column epoch.

    Raises:
        ArtifactError: if a folder is missing, or folders do not belong together.
    """
    seeds, hosted = settings["experiment_seeds"], settings["conversational_hosted"]
    towns = places(inputs["conversations"], kind=CONVERSATIONS, by=("seed",))
    tuned = places(inputs["fine_tuned"], kind=KIND, by=("trained_on", "seed"))
    rows: list[Row] = []
    losses: Losses = {}
    names = {"experiment": EXPERIMENT, "corpus": "macondo_conv", "model": hosted["model"]}
    for trained_on in SCORED:
        for seed in seeds:
            folder, named = tuned[trained_on, seed], names | {"seed": seed}
            expected = identity(towns[seed], kind=CONVERSATIONS)
            require_origin(folder, kind=KIND, role="conversations", expected=expected)
            steps = pd.read_parquet(folder / "steps.parquet")
            answers = json.loads((folder / "answers.json").read_text(encoding="ascii"))
            for split, values in loss_per_epoch(steps, hosted["epochs"], trained_on).items():
                losses.setdefault((trained_on, split), {})[seed] = values
            examples, _ = read_conversations(towns[seed])
            rows += _answers(named | {"method": METHODS[trained_on]}, examples, answers)
            rows += [] if trained_on == "test" else _references(named, examples)
    curves = list(_curves(names, losses, n=len(examples)))
    ends = [row for row in curves if row["epoch"] == hosted["epochs"] and row["seed"] != "all"]
    rows += [{k: v for k, v in row.items() if k != "epoch"} | {"setting": "end"} for row in ends]
    table = tidy(rows)
    return {
        "table": pd.concat([table, means_over_seeds(table)], ignore_index=True),
        "curves": tidy(curves, coordinates=("epoch",)),
    }


def loss_per_epoch(
    steps: pd.DataFrame, epochs: int, trained_on: str
) -> dict[str, NDArray[np.float64]]:
    """Return the loss of each split over epochs, (epochs,); NaN where nothing was measured.

    The loss of an epoch is that of the whole scored file at its end, where the service gives it,
    or else the mean of what it measured on batches. What is trained on is always such a mean, each
    batch being measured before its update.

    Args:
        steps: of `Service.losses`.
        epochs: of the training.
        trained_on: train or test.
    """
    per_epoch = steps["step"].max() / epochs
    epoch = np.ceil(steps["step"] / per_epoch).clip(lower=1).astype(int)
    columns = {trained_on: ["train_loss"]}
    if trained_on != "test":
        columns["test"] = ["full_valid_loss", "valid_loss"]
    found = {}
    for split, candidates in columns.items():
        values = np.full(epochs, np.nan)
        for name in reversed([name for name in candidates if name in steps]):
            groups = steps[name].groupby(epoch)
            means = groups.last() if name == "full_valid_loss" else groups.mean()
            measured = means.dropna()
            values[measured.index.to_numpy() - 1] = measured.to_numpy()
        found[split] = values
    return found


def _curves(names: Row, losses: Losses, *, n: int) -> Iterator[Row]:
    """Yield the loss of every epoch that was measured for all seeds, and its mean over them."""
    for (trained_on, split), of_seeds in losses.items():
        measured = ~np.isnan(np.stack([*of_seeds.values()])).any(axis=0)
        for place in np.flatnonzero(measured):
            row = {**names, "split": split, "method": METHODS[trained_on], "metric": LOSS}
            row |= {"epoch": int(place) + 1, "unit": "nats"}
            yield from seeds_and_mean(row, {s: v[place] for s, v in of_seeds.items()}, n=n)


def _answers(names: Row, examples: pd.DataFrame, answers: Mapping[str, Any]) -> Iterator[Row]:
    """Yield how often the likeliest answer is a child, and how likely the children's names are.

    A name has the probability of all its spellings, with and without a space. Only the likeliest
    first tokens are known: a name that is not among them is less likely than the last one, which
    makes the mean log-likelihood an upper bound.
    """
    right, among, likely = [], [], []
    for villager, child in zip(examples["villager_id"], examples["child"], strict=True):
        reply = answers[str(villager)]
        tokens = reply["first_tokens"]
        children = examples.loc[examples["villager_id"] == villager, "child"]
        right.append(reply["text"].strip().rstrip(".") in set(children))
        spelled = [log_prob for token, log_prob in tokens if token.strip() == child]
        among.append(bool(spelled))
        last = min((log_prob for _, log_prob in tokens), default=np.nan)
        likely.append(np.logaddexp.reduce(spelled, dtype=np.float64) if spelled else last)
    metrics = {"answer_is_a_child": (right, "share")}
    if not np.isnan(likely).any():
        metrics["child_among_first_tokens"] = (among, "share")
        metrics["child_log_likelihood_at_most"] = (likely, "nats")
    bootstrap, ones = villager_bootstrap(examples, EXPERIMENT), np.ones(len(examples))
    for metric, (values, unit) in metrics.items():
        row = {"split": "test", "setting": "end", "metric": metric, "n": len(values), "unit": unit}
        yield {**names, **row, **ratio_with_interval(bootstrap, np.array(values, np.float64), ones)}


def _references(names: Row, examples: pd.DataFrame) -> Iterator[Row]:
    """Yield what a perfect model reaches, if an answer is `ASSUMED_TOKENS` tokens long."""
    level = float(np.log(examples["n_children"]).mean()) / ASSUMED_TOKENS
    yield {
        **names,
        "split": "test",
        "method": "theory",
        "setting": f"answers of {ASSUMED_TOKENS} tokens",
        "metric": LOSS,
        "value": level,
        "n": len(examples),
        "unit": "nats",
    }
