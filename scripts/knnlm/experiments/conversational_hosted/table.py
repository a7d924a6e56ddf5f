"""The tables of a hosted model on Macondo-Conv, in the form of those of a local one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import DocumentBootstrap, student_interval
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.conversational.names import LOSS, METHODS, SCORED
from knnlm.experiments.conversational.table import RESAMPLES, Row
from knnlm.experiments.conversational_hosted.finetuning import KIND, read_hosted
from knnlm.runtime.artifacts import identity, require_origin
from knnlm.runtime.seeds import numpy_generator
from knnlm.text.macondo.conversations import KIND as CONVERSATIONS
from knnlm.text.macondo.conversations import read_conversations

EXPERIMENT = "conversational_hosted"
ASSUMED_TOKENS = 3  # of an answer: the name, the full stop and the token that ends it


def evaluate_hosted(
    *,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    conversations: Sequence[Path],
    fine_tuned: Sequence[Path],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of the answers and of the last epoch, and the losses over epochs.

    Args:
        settings: the block `conversational_hosted` of the config.
        seeds: of the towns.
        conversations: of each seed.
        fine_tuned: for train and test as what was trained on, for each seed.

    Returns:
        Two tidy tables, the second with the column epoch.

    Raises:
        ArtifactError: if folders do not belong together.
    """
    folders = iter(fine_tuned)
    rows: list[Row] = []
    losses: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    names = {"experiment": EXPERIMENT, "corpus": "macondo_conv", "model": settings["model"]}
    for trained_on in SCORED:
        for seed, town in zip(seeds, conversations, strict=True):
            folder, named = next(folders), names | {"seed": seed}
            expected = identity(town, kind=CONVERSATIONS)
            require_origin(folder, kind=KIND, role="conversations", expected=expected)
            steps, answers = read_hosted(folder)
            for split, values in loss_per_epoch(steps, settings["epochs"], trained_on).items():
                losses.setdefault((trained_on, split), []).append(values)
            examples, _ = read_conversations(town)
            rows += _answers(named | {"method": METHODS[trained_on]}, examples, answers)
            rows += [] if trained_on == "test" else _references(named, examples)
    curves = list(_curves(names, losses, seeds, n=len(examples)))
    ends = [row for row in curves if row["epoch"] == settings["epochs"] and row["seed"] != "all"]
    rows += [{k: v for k, v in row.items() if k != "epoch"} | {"setting": "end"} for row in ends]
    table = tidy(rows)
    table = pd.concat([table, means_over_seeds(table)], ignore_index=True)
    return table, tidy(curves, coordinates=("epoch",))


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


def _curves(
    names: Row,
    losses: Mapping[tuple[str, str], Sequence[NDArray[np.float64]]],
    seeds: Sequence[int],
    *,
    n: int,
) -> Iterator[Row]:
    """Yield the loss of every measured epoch, for each seed and for their mean."""
    for (trained_on, split), of_seeds in losses.items():
        table = np.stack(of_seeds)  # (n_seeds, epochs)
        for place in np.flatnonzero(~np.isnan(table).any(axis=0)):
            row = {**names, "split": split, "method": METHODS[trained_on], "metric": LOSS}
            row |= {"epoch": int(place) + 1, "unit": "nats"}
            for seed, value in zip(seeds, table[:, place], strict=True):
                yield {**row, "seed": seed, "value": float(value), "n": n}
            if len(seeds) > 1:
                low, high = student_interval(table[:, place])
                row |= {"seed": "all", "value": float(table[:, place].mean()), "n": len(seeds)}
                yield {**row, "ci_low": low, "ci_high": high}


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
    generator = numpy_generator(0, EXPERIMENT, "bootstrap")
    villagers = examples["villager_id"].to_numpy()
    bootstrap = DocumentBootstrap(villagers, samples=RESAMPLES, generator=generator)
    metrics = {"answer_is_a_child": (right, "share")}
    if not np.isnan(likely).any():
        metrics["child_among_first_tokens"] = (among, "share")
        metrics["child_log_likelihood_at_most"] = (likely, "nats")
    for metric, (values, unit) in metrics.items():
        numbers = np.array(values, dtype=np.float64)
        low, high = bootstrap.ratio(numbers)
        row = {"split": "test", "setting": "end", "metric": metric, "value": numbers.mean()}
        row |= {"ci_low": low, "ci_high": high, "n": len(numbers), "unit": unit}
        yield {**names, **row}


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
