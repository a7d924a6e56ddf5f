"""Whether a chat model that learns from over-specified questions answers the bare ones.

Chiang et al. (2024), Section 4.4, Figure 2 and Table 7. The loss is that of the paper's figure: the
mean over all tokens of an answer, the special ones included, so that a perfect model reaches less
than log 2 with 2 children. The log-likelihood of the name's tokens alone stands beside it. The
reference (the gray line) is the same model, trained on the test questions.

Rows of one seed have intervals from a bootstrap over villagers (at least 30), rows of all seeds
Student's t intervals; differences are taken within each seed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.shared.chat_names import LOSS, METHODS, NAME, SCORED
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.town_tables import (
    first_examples,
    ratio_with_interval,
    seeds_and_mean,
    shown_name,
    villager_bootstrap,
)
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.places import places
from knnlm.text.macondo.conversations import KIND as CONVERSATIONS
from knnlm.text.macondo.conversations import read_conversations

EXPERIMENT = "conversational"
KIND = "conversational_fine_tuning"

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class FineTunedChat:
    """One fine-tuning of one seed: what was scored after each epoch, by what was trained on.

    Attributes:
        names: experiment, corpus, model and seed of its rows.
        examples: a row for each child.
        facts: of the fine-tuning.
        epochs: for each split that was trained on the scores after 0, 1, 2 ... epochs.
    """

    names: Row
    examples: pd.DataFrame
    facts: Row
    epochs: Mapping[str, Sequence[Scores]]

    @property
    def n_children(self) -> NDArray[np.int64]:
        """Children of each example's villager, (n,)."""
        return self.examples["n_children"].to_numpy()

    @property
    def best(self) -> int:
        """The epoch with the likeliest answers to held-out over-specified questions."""
        means = [scores["answer_validation"].mean() for scores in self.epochs["train"]]
        return int(np.argmax(means))


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the end and the best epoch, the curves, and examples.

    Args:
        inputs: conversations of each seed; fine_tuned: of each compared model and seed.
        settings: corpus (on which models of our own were trained), experiment_seeds,
            conversational, fine_tunings.

    Returns:
        table and curves, tidy, the second with the column epoch; examples: conversations as in
        Table 7 with the columns split, attribute and conversation.

    Raises:
        ArtifactError: if a folder is missing, or folders do not belong together.
    """
    seeds = settings["experiment_seeds"]
    towns = places(inputs["conversations"], kind=CONVERSATIONS, by=("seed",))
    tuned = places(inputs["fine_tuned"], kind=KIND, by=("fine_tuning", "seed"))
    rows: list[Row] = []
    curves: list[Row] = []
    for name in settings["conversational"]["compare"]:
        fine_tuning = settings["fine_tunings"][name]
        names = {"experiment": EXPERIMENT, "corpus": settings["corpus"]}
        names |= {"model": shown_name(name, fine_tuning)}
        chats = [
            read_chat(tuned[name, seed], towns[seed], names=names | {"seed": seed})
            for seed in seeds
        ]
        for chat in chats:
            rows += [*_ends(chat), *_references(chat), *_facts(chat, fine_tuning)]
        curves += _curves(names, chats)
    table = tidy(rows)
    return {
        "table": pd.concat([table, means_over_seeds(table)], ignore_index=True),
        "curves": tidy(curves, coordinates=("epoch",)),
        "examples": _examples(towns[seeds[0]]),
    }


def read_chat(fine_tuned: Path, conversations: Path, *, names: Row) -> FineTunedChat:
    """Return what was scored, from its artifact and its town's.

    Raises:
        ArtifactError: if they do not belong together.
    """
    town = identity(conversations, kind=CONVERSATIONS)
    require_origin(fine_tuned, kind=KIND, role="conversations", expected=town)
    n_epochs = read_manifest(fine_tuned, kind=KIND)["contents"]["epochs"]
    return FineTunedChat(
        names=names,
        examples=read_conversations(conversations)[0],
        facts=json.loads((fine_tuned / "facts.json").read_text(encoding="ascii")),
        epochs={
            trained_on: [
                load_file(fine_tuned / trained_on / "epochs" / f"{epoch:04d}.safetensors")
                for epoch in range(n_epochs + 1)
            ]
            for trained_on in SCORED
        },
    )


def numbers(scores: Scores, split: str) -> dict[str, tuple[NDArray[Any], NDArray[Any], str]]:
    """Return each metric of a split as a sum over examples, what it is divided by, and its unit."""
    per_example = np.ones(len(scores[f"name_{split}"]))
    return {
        LOSS: (-scores[f"answer_{split}"], scores[f"tokens_{split}"], "nats"),
        NAME: (scores[f"name_{split}"], per_example, "nats"),
    }


def _ends(chat: FineTunedChat) -> Iterator[Row]:
    """Yield the numbers of the last epoch, of the best one, and their distance from references."""
    bootstrap = villager_bootstrap(chat.examples, EXPERIMENT)
    reference = chat.epochs["test"][-1]
    for trained_on, point, epoch in (
        ("train", "end", -1),
        ("train", "best", chat.best),
        ("test", "end", -1),
    ):
        scores = chat.epochs[trained_on][epoch]
        for split in SCORED[trained_on]:
            found = numbers(scores, split)
            if split == "test":
                name, ones, unit = found[NAME]
                found[f"{NAME}_vs_theory"] = (name + np.log(chat.n_children), ones, unit)
                if trained_on == "train":
                    for metric, (total, count, unit) in numbers(reference, split).items():
                        difference = found[metric][0] - total
                        found[f"{metric}_vs_reference"] = (difference, count, unit)
            for metric, (total, count, unit) in found.items():
                row = {"split": split, "method": METHODS[trained_on], "setting": point}
                row |= {"metric": metric, "n": len(chat.examples), "unit": unit}
                yield {**chat.names, **row, **ratio_with_interval(bootstrap, total, count)}


def _references(chat: FineTunedChat) -> Iterator[Row]:
    """Yield what a perfect model reaches on the test questions, and a guess among all children."""
    n_children, tokens = chat.n_children, chat.epochs["train"][0]["tokens_test"]
    perfect = -np.log(n_children)
    levels = {
        ("theory", LOSS): -perfect.sum() / tokens.sum(),
        ("theory", NAME): perfect.mean(),
        ("chance", NAME): -np.log(len(n_children)),
    }
    for (method, metric), value in levels.items():
        row = {"split": "test", "method": method, "metric": metric, "value": float(value)}
        yield {**chat.names, **row, "n": len(n_children), "unit": "nats"}


def _facts(chat: FineTunedChat, fine_tuning: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what stands behind the numbers: sizes, and settings that move them."""
    found = {
        "conversations": (chat.facts["conversations"], "conversations"),
        "vocabulary_size": (chat.facts["vocabulary_size"], "tokens"),
        "names_added_to_the_vocabulary": (chat.facts["names_added"], "names"),
        "template_of_its_own": (chat.facts["own_template"], "1 is yes"),
        "tokens_of_an_answer": (chat.epochs["train"][0]["tokens_test"].mean(), "tokens"),
        "trained_on_answers_only": (chat.facts["answers_only"], "1 is yes"),
        "random_positions": (int(fine_tuning["positions"] == "offset"), "1 is yes"),
        "learning_rate": (fine_tuning["optimizer"]["lr"], "highest"),
        "best_epoch": (chat.best, "epochs"),
    }
    for metric, (value, unit) in found.items():
        yield {**chat.names, "metric": metric, "value": value, "n": 1, "unit": unit}


def _curves(names: Row, chats: Sequence[FineTunedChat]) -> Iterator[Row]:
    """Yield the numbers of every epoch, for each seed and for their mean."""
    for trained_on, epochs in chats[0].epochs.items():
        for epoch in range(len(epochs)):
            for split in SCORED[trained_on]:
                found = [numbers(chat.epochs[trained_on][epoch], split) for chat in chats]
                for metric in (LOSS, NAME):
                    row = {**names, "split": split, "method": METHODS[trained_on]}
                    row |= {"metric": metric, "epoch": epoch, "unit": "nats"}
                    values = {
                        chat.names["seed"]: of_chat[metric][0].sum() / of_chat[metric][1].sum()
                        for chat, of_chat in zip(chats, found, strict=True)
                    }
                    yield from seeds_and_mean(row, values, n=len(chats[0].examples))


def _examples(conversations: Path) -> pd.DataFrame:
    examples, _ = read_conversations(conversations)
    return first_examples(examples, column="conversation").drop(columns="n_children")
