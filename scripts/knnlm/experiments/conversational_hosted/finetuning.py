"""Macondo-Conv on a hosted model: what it would cost, the fine-tunings, and their answers.

Chiang et al. (2024), Section 4.4, used gpt-3.5-turbo-0613. Of a hosted model we see what the
service measures: the loss of each step on the training conversations and on the test questions,
special tokens included, and the likeliest first tokens of its answers.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from openai.types.fine_tuning import FineTuningJob

from knnlm.experiments.conversational_hosted.service import HostedError, Pause, Service
from knnlm.experiments.conversational_hosted.state import State
from knnlm.experiments.shared.chat_names import SCORED
from knnlm.runtime.artifacts import (
    atomic_path,
    canonical_json,
    identity,
    save_json,
    sha256_file,
)
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, making
from knnlm.runtime.places import places
from knnlm.text.macondo.chat import Message
from knnlm.text.macondo.conversations import KIND as CONVERSATIONS
from knnlm.text.macondo.conversations import messages_path, read_conversations
from knnlm.text.tokenizer import load_pretrained

# Around a message and around a conversation, as OpenAI counts them for its chat models.
TOKENS_PER_MESSAGE, TOKENS_PER_CONVERSATION = 3, 3
DECISIVE = ("base_url", "model", "epochs")  # settings that change what is paid for


def plan_hosted(
    *,
    conversations: Sequence[Path],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    cache: Path,
) -> pd.DataFrame:
    """Return and log what all fine-tunings would send; nothing is sent.

    Args:
        conversations: of each seed, in any order.
        seeds: of the towns.
        settings: the block `conversational_hosted` of the config.
        cache: where a downloaded tokenizer stays.

    Returns:
        Columns seed, trained_on, examples, tokens (of one epoch), epochs, trained_tokens,
        scored_examples, questions, and counted_with (bytes: an upper bound).
    """
    count, counted_with = _counter(settings["tokenizer"], cache)
    towns = places(conversations, kind=CONVERSATIONS, by=("seed",))
    rows = []
    for seed in seeds:
        examples, messages = read_conversations(towns[seed])
        for trained_on in SCORED:
            tokens = sum(_count(each, count) for each in messages[trained_on])
            rows.append(
                {
                    "seed": seed,
                    "trained_on": trained_on,
                    "examples": len(messages[trained_on]),
                    "tokens": tokens,
                    "epochs": settings["epochs"],
                    "trained_tokens": tokens * settings["epochs"],
                    "scored_examples": len(messages["test"]) if trained_on == "train" else 0,
                    "questions": examples["villager_id"].nunique(),
                    "counted_with": counted_with,
                }
            )
    plan = pd.DataFrame(rows)
    LOGGER.info("%s", _summary(plan, settings))
    return plan


def _summary(plan: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Return in one sentence what a plan sends where."""
    total = plan[["examples", "trained_tokens", "questions"]].sum()
    bound = "at most " if (plan["counted_with"] == "bytes").all() else "about "
    return (
        f"{len(plan)} fine-tunings of {settings['model']} at {settings['base_url']}: "
        f"{total['examples']:,} training examples, {settings['epochs']} epochs, "
        f"{bound}{total['trained_tokens']:,} trained tokens, then {total['questions']:,} questions"
    )


def _counter(tokenizer: str | None, cache: Path) -> tuple[Callable[[str], int], str]:
    if tokenizer is None:  # every token has a byte
        return lambda text: len(text.encode("utf-8")), "bytes"
    vocabulary, _ = load_pretrained(tokenizer, cache=cache)
    return lambda text: len(vocabulary.encode(text, add_special_tokens=False)), tokenizer


def _count(messages: Sequence[Message], count: Callable[[str], int]) -> int:
    texts = [text for message in messages for text in message.values()]
    around = TOKENS_PER_CONVERSATION + TOKENS_PER_MESSAGE * len(messages)
    return around + sum(map(count, texts))


def finetune_hosted(
    target: Target,
    *,
    plan: Path,
    conversations: Path,
    settings: Mapping[str, Any],
    states: Path,
    pause: Pause | None = None,
) -> None:
    """Fine-tune a hosted model and ask it the test questions; write what the service measured.

    The artifact (kind "hosted_fine_tuning") holds steps.parquet (see `Service.losses`) and
    answers.json (by villager_id, see `Service.answer`).

    Args:
        target: the artifact; its names tell what is trained on, train or, for reference, test,
            and the seed of the town, which the service gets too.
        plan: the table of `plan_hosted`.
        conversations: the town's.
        settings: the block `conversational_hosted` of the config.
        states: folder of the files that remember what was paid for, see `State`.
        pause: waits for a number of seconds; None is `time.sleep`.

    Raises:
        HostedError: if something would be paid for that the config does not confirm, or if the
            service refuses.
    """
    state = open_state(states, conversations, settings, names=target.names)
    examples, messages = read_conversations(conversations)
    questions = {
        str(villager): messages["test"][row][:-1]
        for row, villager in enumerate(examples["villager_id"])
    }
    wanted = {_place(villager, settings) for villager in questions}
    paid = state.status == "succeeded" and wanted <= set(state.answers)
    if not settings["confirm"] and not paid:
        raise HostedError(
            f"not confirmed: {_summary(pd.read_csv(plan), settings)}; if you want to pay for "
            "this, set conversational_hosted.confirm: true in config.yaml or an overlay"
        )
    waiting = {} if pause is None else {"pause": pause}
    service = Service(
        base_url=settings["base_url"], key_variable=settings["api_key_variable"], **waiting
    )
    try:
        job = _train(service, state, conversations, settings=settings, names=target.names)
        model = job.fine_tuned_model or ""
        answers = _ask(service, state, model, questions, settings=settings)
        steps = service.losses(job)
    finally:
        service.close()
    with making(
        target,
        kind="hosted_fine_tuning",
        made_from={"conversations": identity(conversations, kind=CONVERSATIONS)},
        settings={name: settings[name] for name in ("top_log_probs", *DECISIVE)}
        | {"seed": target.seed, "on": target.names["trained_on"]},
    ) as made:
        with atomic_path(made.folder / "steps.parquet") as temporary:
            pd.DataFrame(steps).to_parquet(temporary, index=False)
        save_json(made.folder / "answers.json", answers)
        made.contents |= {"steps": len(steps), "job": state.ids["job"]}


def open_state(
    states: Path, conversations: Path, settings: Mapping[str, Any], *, names: Mapping[str, str]
) -> State:
    """Return the state of a fine-tuning; its name follows from all that decides the training.

    It follows neither from code, nor from where results lie, nor from what is asked afterwards, so
    that none of them makes anybody train again. For the arguments see `finetune_hosted`.
    """
    content = {name: settings[name] for name in DECISIVE}
    content |= {"seed": int(names["seed"]), "on": names["trained_on"]}
    for split in ("train", "test"):
        content[split] = sha256_file(messages_path(conversations, split))
    name = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]
    return State(states / f"{name}.json", content)


def _train(
    service: Service,
    state: State,
    conversations: Path,
    *,
    settings: Mapping[str, Any],
    names: Mapping[str, str],
) -> FineTuningJob:
    """Return the job when it has succeeded; what was begun before is not begun again."""
    # A service refuses to score what it trains on; its training loss is the reference then.
    splits = dict.fromkeys([names["trained_on"], "test"])
    files = [
        service.upload(
            messages_path(conversations, split),
            name=f"macondo-{state.path.stem}-{split}.jsonl",
            state=state,
            step=f"{split}_file",
        )
        for split in splits
    ]
    job = service.start(
        model=settings["model"],
        epochs=settings["epochs"],
        seed=int(names["seed"]),
        files=files,
        state=state,
    )
    return service.wait(job, every=settings["poll_seconds"], state=state)


def _ask(
    service: Service,
    state: State,
    model: str,
    questions: Mapping[str, Sequence[Message]],
    *,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the answer to each villager's question; what was answered before is not asked."""
    places_of = {villager: _place(villager, settings) for villager in questions}
    for villager, question in questions.items():
        if places_of[villager] not in state.answers:
            reply = service.answer(model, question, top=settings["top_log_probs"])
            state.note_answer(places_of[villager], reply)
    return {villager: state.answers[place] for villager, place in places_of.items()}


def _place(villager: str, settings: Mapping[str, Any]) -> str:
    """Return the name of an answer in the state: one asked for with more tokens is another one."""
    return f"{settings['top_log_probs']}/{villager}"
