"""Fine-tuning a chat model on Macondo-Conv, with the loss on every split after every epoch.

Chiang et al. (2024), Section 4.4: once on over-specified questions, and once, for the gray line of
Figure 2, on the test questions themselves. The loss that is reported is that of the answers; what
is trained on is a setting. The fine-tuned weights are not kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

from knnlm.experiments.shared.chat_names import SCORED
from knnlm.experiments.shared.fine_tuning import LOG, FineTuning, Training
from knnlm.lm.chat import Chats, chat_folder, read_chat_template, score_answers, tokenize_chats
from knnlm.lm.process import this_process
from knnlm.lm.training import Evaluation
from knnlm.runtime.artifacts import atomic_path, identity, read_manifest, save_json
from knnlm.runtime.making import Target, each_missing, making
from knnlm.text.macondo.chat import CHAT_TEMPLATE
from knnlm.text.macondo.conversations import KIND as CONVERSATIONS
from knnlm.text.macondo.conversations import read_conversations
from knnlm.text.macondo.town import SPLITS


def finetune_conversational(
    target: Target, fine_tuning: FineTuning, *, conversations: Path, trained_tokens: str
) -> None:
    """Fine-tune a chat model on the train and, for reference, on the test questions of a town.

    The artifact (kind "conversational_fine_tuning") has facts.json and the folders train and test,
    named by what was trained on, with training.parquet (step, loss, lr) and
    epochs/{epoch}.safetensors: for each split the log-likelihoods answer_{split} and name_{split}
    and the numbers of tokens tokens_{split}, (n,) each.

    Args:
        target: the artifact.
        fine_tuning: what is trained, from which model.
        conversations: the town's.
        trained_tokens: all of a conversation, or answers, as services train.

    Raises:
        ValueError: if a model cannot be had, or a setting does not suit it.
    """
    settings, answers_only = dict(fine_tuning.settings), trained_tokens == "answers"
    is_main = this_process().is_main_process
    with making(
        target,
        kind="conversational_fine_tuning",
        made_from={
            "conversations": identity(conversations, kind=CONVERSATIONS),
            **fine_tuning.made_from(),
        },
        settings={"fine_tuning": settings, "trained_tokens": trained_tokens, "seed": target.seed},
        publishes=is_main,
    ) as made:
        logs = {name: made.folder / name / LOG for name in SCORED}
        for trained_on in each_missing(logs, label="fine-tuning", name="trainings"):
            start = _start(conversations, fine_tuning, seed=target.seed)
            if is_main:
                facts = start.facts | {"answers_only": int(answers_only)}
                save_json(made.folder / "facts.json", facts)
            texts = start.chats[trained_on].texts
            training = Training(
                start.model, texts, settings, seed=target.seed, answers_only=answers_only
            )
            _run(training, start, trained_on, folder=made.folder / trained_on)
        made.contents |= {"epochs": settings["epochs"]}


class _Start(NamedTuple):
    """A model before its fine-tuning, and the conversations in its tokens."""

    model: nn.Module
    chats: dict[str, Chats]
    facts: dict[str, Any]


def _start(conversations: Path, fine_tuning: FineTuning, *, seed: int) -> _Start:
    folder = fine_tuning.tokenizer or chat_folder(fine_tuning.pretrained, cache=fine_tuning.cache)
    examples, messages = read_conversations(conversations)
    children = examples["child"].tolist()
    town = read_manifest(conversations, kind=CONVERSATIONS)["settings"]
    names = children if town["child_names"] == "added" else []
    point = fine_tuning.start(names, seed=seed, vocabulary=folder)
    template, end = read_chat_template(folder), point.end_of_document
    chats = {
        split: tokenize_chats(point.tokenizer, template, messages[split], children, end_of_text=end)
        for split in SPLITS
    }
    facts = {
        "conversations": len(examples),
        "vocabulary_size": point.vocabulary,
        "names_added": len(point.new_tokens),
        "own_template": int(template.source != CHAT_TEMPLATE),
    }
    return _Start(point.model, chats, facts)


def _run(training: Training, start: _Start, trained_on: str, *, folder: Path) -> None:
    """Train on one split and write the scores after each epoch."""

    def evaluate(step: int) -> dict[str, float]:
        epoch = step // training.per_epoch
        found = score_splits(start.model, start.chats, SCORED[trained_on])
        with atomic_path(folder / "epochs" / f"{epoch:04d}.safetensors") as temporary:
            save_file(found, temporary)
        return {}

    at = range(0, training.updates + 1, training.per_epoch)
    training.run(folder, Evaluation(evaluate, at), log_every=training.per_epoch)


def score_splits(
    model: nn.Module, chats: dict[str, Chats], splits: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return for each split the log-likelihoods of answers and names, and tokens of answers."""
    found = {}
    for split in splits:
        scores = score_answers(model, chats[split])
        found[f"answer_{split}"] = scores.sum(axis=1)
        found[f"name_{split}"] = np.where(chats[split].names, scores, 0.0).sum(axis=1)
        found[f"tokens_{split}"] = chats[split].answers.sum(axis=1).astype(np.float64)
    return found
