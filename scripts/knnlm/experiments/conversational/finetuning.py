"""Fine-tuning a chat model on Macondo-Conv, with the loss on every split after every epoch.

Chiang et al. (2024), Section 4.4: once on over-specified questions, and once, for the gray line of
Figure 2, on the test questions themselves. The loss that is reported is that of the answers; what
is trained on is a setting. The fine-tuned weights are not kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

from knnlm.experiments.conversational.names import FACTS, KIND, SCORED
from knnlm.lm.anatomy import context
from knnlm.lm.chat import Chats, chat_folder, read_template, score_answers, tokenize_chats
from knnlm.lm.finetuning import Epochs, NextToken, mean_nll, recipe_of
from knnlm.lm.process import this_process
from knnlm.lm.starting_point import starting_point
from knnlm.lm.training import STATE, Evaluation, Journal, train
from knnlm.runtime.artifacts import atomic_path, identity, read_manifest, save_json, write_manifest
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import partial_folder, publish
from knnlm.runtime.signals import stop_if_asked
from knnlm.text.macondo.chat import CHAT_TEMPLATE
from knnlm.text.macondo.conversations import KIND as CONVERSATIONS
from knnlm.text.macondo.conversations import read_conversations
from knnlm.text.macondo.town import SPLITS

LOG = "training.parquet"  # written last


def finetune_conversational(
    *,
    output: Path,
    fingerprint: str,
    conversations: Path,
    model: Path | None,
    tokenizer: Path | None,
    fine_tuning: Mapping[str, Any],
    shape: Mapping[str, Any] | str | None,
    trained_tokens: str,
    seed: int,
    cache: Path,
) -> None:
    """Fine-tune a chat model on the train and, for reference, on the test questions of a town.

    The artifact (kind "conversational_fine_tuning") has facts.json and the folders train and test,
    named by what was trained on, with training.parquet (step, loss, lr) and
    epochs/{epoch}.safetensors: for each split the log-likelihoods answer_{split} and name_{split}
    and the numbers of tokens tokens_{split}, (n,) each.

    Args:
        output: the artifact.
        fingerprint: of the rule.
        conversations: the town's.
        model: the artifact of one of our models, if the fine-tuning starts from it.
        tokenizer: the artifact of our tokenizer, if the model uses it.
        fine_tuning: an entry of overspecification.fine_tunings in the config.
        shape: of random weights: a block of `models`, or a name.
        trained_tokens: all of a conversation, or answers, as services train.
        seed: of everything that is drawn.
        cache: where downloads stay.

    Raises:
        ValueError: if a model cannot be had, or a setting does not suit it.
    """
    made_from = {"conversations": identity(conversations, kind=CONVERSATIONS)}
    if model is not None:
        made_from["model"] = identity(model, kind="model")
    partial = partial_folder(output, fingerprint, made_from)
    missing = [name for name in SCORED if not (partial / name / LOG).is_file()]
    done = len(SCORED) - len(missing)
    progress = Progress("fine-tuning", total=len(SCORED), unit="trainings", done=done)
    for trained_on in missing:
        start = _start(
            conversations,
            model,
            tokenizer,
            fine_tuning=fine_tuning,
            shape=shape,
            seed=seed,
            cache=cache,
        )
        answers_only = trained_tokens == "answers"
        save_json(partial / FACTS, start.facts | {"answers_only": int(answers_only)})
        _train(
            partial / trained_on,
            start,
            trained_on,
            fine_tuning=fine_tuning,
            answers_only=answers_only,
            seed=seed,
        )
        progress.update(progress.done + 1)
        stop_if_asked()
    if not this_process().is_main_process:
        return
    write_manifest(
        partial,
        kind=KIND,
        settings={"fine_tuning": fine_tuning, "trained_tokens": trained_tokens, "seed": seed},
        made_from=made_from,
        contents={"epochs": fine_tuning["epochs"]},
    )
    publish(partial, output)


class _Start(NamedTuple):
    """A model before its fine-tuning, and the conversations in its tokens."""

    model: nn.Module
    chats: dict[str, Chats]
    facts: dict[str, Any]


def _start(
    conversations: Path,
    model: Path | None,
    tokenizer: Path | None,
    *,
    fine_tuning: Mapping[str, Any],
    shape: Mapping[str, Any] | str | None,
    seed: int,
    cache: Path,
) -> _Start:
    """Return the start of a fine-tuning; for the arguments see `finetune_conversational`."""
    init = fine_tuning["init"]
    folder = tokenizer or chat_folder(str(shape if init == "random" else init), cache=cache)
    examples, messages = read_conversations(conversations)
    children = examples["child"].tolist()
    town = read_manifest(conversations, kind=CONVERSATIONS)["settings"]
    point = starting_point(
        vocabulary=folder,
        names=children if town["child_names"] == "added" else [],
        model=model,
        fine_tuning=fine_tuning,
        shape=shape,
        seed=seed,
        cache=cache,
    )
    template, end = read_template(folder), point.end_of_document
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


def _train(
    folder: Path,
    start: _Start,
    trained_on: str,
    *,
    fine_tuning: Mapping[str, Any],
    answers_only: bool,
    seed: int,
) -> None:
    """Train on one split; training.parquet, written last, says that it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = start.chats[trained_on].texts
    batches = Epochs(
        texts,
        batch_size=fine_tuning["batch_size"],
        seed=seed,
        positions=fine_tuning["positions"],
        context=context(start.model),
        answers_only=answers_only,
    )
    updates = fine_tuning["epochs"] * batches.per_epoch

    def evaluate(step: int) -> dict[str, float]:
        found = score_splits(start, SCORED[trained_on])
        epoch = step // batches.per_epoch
        with atomic_path(folder / "epochs" / f"{epoch:04d}.safetensors") as temporary:
            save_file(found, temporary)
        return {}

    rows = train(
        NextToken(start.model),
        recipe_of(fine_tuning, updates=updates, seed=seed),
        batch_at=batches.batch,
        loss=mean_nll,
        journal=Journal(
            folder,
            save_every=fine_tuning["save_every"],
            log_every=batches.per_epoch,
            tokens_per_update=int(texts.lengths.mean() * fine_tuning["batch_size"]),
        ),
        evaluation=Evaluation(evaluate, at=range(0, updates + 1, batches.per_epoch)),
    )
    if this_process().is_main_process:
        with atomic_path(folder / LOG) as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False)
        (folder / STATE).unlink(missing_ok=True)


def score_splits(start: _Start, splits: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return for each split the log-likelihoods of answers and names, and tokens of answers."""
    found = {}
    for split in splits:
        chats = start.chats[split]
        scores = score_answers(start.model, chats)
        found[f"answer_{split}"] = scores.sum(axis=1)
        found[f"name_{split}"] = np.where(chats.names, scores, 0.0).sum(axis=1)
        found[f"tokens_{split}"] = chats.answers.sum(axis=1).astype(np.float64)
    return found
