"""Macondo-Conv: the town as questions and answers, to fine-tune a chat model on.

Chiang et al. (2023), Section 4.4: 125 villagers with 2 children; the question of a training
example over-specifies the parent, the question of a test example does not. The held-out questions
with another attribute are ours, as in `knnlm.text.macondo.town`.
"""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from knnlm.text.macondo.names import NamePool
from knnlm.text.macondo.town import (
    SPLITS,
    Macondo,
    draw_examples,
    write_json_lines,
    write_sentences,
)
from knnlm.text.macondo.villagers import draw_villagers

OVER_SPECIFIED_QUESTION = "Who is the child of {villager}, the one who {clause}?"
BARE_QUESTION = "Who is the child of {villager}?"
# For local models without a template of their own: the paper's "User: ... Assistant: ...", in the
# form that tokenizers of transformers take.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '' if loop.first else ' ' }}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} Assistant:{% endif %}"
)

Message = dict[str, str]

CARD = """# Macondo-Conv

The town of Macondo in conversations, after Chiang et al. (2023), Section 4.4:
{villagers:,} villagers with {children} children each, {examples:,} questions a split.

- `train`: {train}
- `validation`, with an attribute that no training question about this villager has: {validation}
- `test`: {test}

`{{split}}.messages.jsonl` has the messages alone, as fine-tuning services take them;
`{{split}}.txt` and `{{split}}.jsonl` have them as text, with the characters at which the child's
name stands.

Seed {seed}. Names: {source}.
"""


def ask(villager: str, child: str, *, clause: str | None = None) -> list[Message]:
    """Return a question for a villager's child and the answer, over-specified if given a clause."""
    template = OVER_SPECIFIED_QUESTION if clause else BARE_QUESTION
    return [
        {"role": "user", "content": template.format(villager=villager, clause=clause)},
        {"role": "assistant", "content": f"{child}."},
    ]


def render_chat(messages: Sequence[Message]) -> str:
    """Return messages as one line of text, by `CHAT_TEMPLATE`."""
    return jinja2.Template(CHAT_TEMPLATE).render(messages=messages)


def generate_conversations(
    *,
    seed: int,
    n_villagers: int,
    children_each: int,
    names: NamePool,
    child_names: Sequence[str],
) -> Macondo:
    """Return the villagers and, for each child, the three conversations as text.

    The examples have the columns of `Macondo`, with a conversation in the place of a sentence,
    and for each split its messages in the column {split}_messages.

    Args:
        seed: same seed and names, same town.
        n_villagers: at least 2; the paper has 125.
        children_each: 1 to 5; the paper has 2.
        names: of the villagers.
        child_names: candidates for the children, distinct; see `eligible_child_names`.

    Raises:
        ValueError: if a size is out of range or the names do not suffice.
    """
    villagers = draw_villagers(
        seed=seed,
        family_sizes=[children_each] * n_villagers,
        names=names,
        child_names=child_names,
    )
    examples = draw_examples(villagers, seed=seed)
    rows = examples.to_dict("records")
    for split in SPLITS:
        conversations = [
            ask(row["villager"], row["child"], clause=row.get(f"{split}_clause")) for row in rows
        ]
        texts = [render_chat(messages) for messages in conversations]
        ends = [len(text) - len(".") for text in texts]
        examples[split] = texts
        examples[f"{split}_start"] = ends - examples["child"].str.len()
        examples[f"{split}_end"] = ends
        examples[f"{split}_messages"] = conversations
    return Macondo(villagers, examples.drop(columns=["train_clause", "validation_clause"]))


def write_conversations(
    folder: Path,
    *,
    seed: int,
    n_villagers: int,
    children_each: int,
    names: NamePool,
    child_names: Sequence[str],
) -> None:
    """Write the conversations as messages, text and tables, with a dataset card.

    villagers.parquet and examples.parquet are as `generate_conversations` returns them, less the
    messages; for each split there are {split}.messages.jsonl ({"messages": [...]} a line, what
    fine-tuning services take), {split}.txt and {split}.jsonl; README.md is the card.
    """
    town = generate_conversations(
        seed=seed,
        n_villagers=n_villagers,
        children_each=children_each,
        names=names,
        child_names=child_names,
    )
    examples = town.examples.drop(columns=[f"{split}_messages" for split in SPLITS])
    folder.mkdir(parents=True, exist_ok=True)
    town.villagers.to_parquet(folder / "villagers.parquet", index=False)
    examples.to_parquet(folder / "examples.parquet", index=False)
    for split in SPLITS:
        write_sentences(folder / split, examples, split=split)
        conversations = town.examples[f"{split}_messages"]
        write_json_lines(
            folder / f"{split}.messages.jsonl", ({"messages": each} for each in conversations)
        )
    card = CARD.format(
        villagers=n_villagers,
        children=children_each,
        examples=len(examples),
        seed=seed,
        source=names.source,
        **{split: examples[split].iloc[0] for split in SPLITS},
    )
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
