"""Macondo: the villagers of a made-up town, and the sentences that tell of their children.

Chiang et al. (2023), Section 4.2 and Appendix B.1: a training sentence names a parent together
with a detail that has nothing to do with the child (over-specified); a test sentence leaves the
detail out. The authors' generator is not public: sizes and templates are the paper's, what it
does not say is decided here and listed on the dataset card.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.runtime.seeds import numpy_generator
from knnlm.text.macondo.names import NamePool
from knnlm.text.macondo.villagers import CLAUSES, draw_villagers

SPLITS = ("train", "validation", "test")
OVER_SPECIFIED = "{villager}, who {clause}, is the parent of "
BARE = "{villager}, is the parent of "  # the comma is the paper's

CARD = """---
language: en
task_categories: [text-generation]
configs:
- config_name: default
  data_files:
  - {{split: train, path: train.jsonl}}
  - {{split: validation, path: validation.jsonl}}
  - {{split: test, path: test.jsonl}}
---

# Macondo

A made-up town, after Chiang et al. (2023), *On Retrieval Augmentation and the Limitations of
Language Model Training*: does a language model that was trained on over-specified facts complete
the bare ones? A perfect one gives each of a villager's n children the log-likelihood log(1/n).

- `train`, one of the villager's six attributes for each child: "{train}"
- `validation`, an attribute that no training sentence of this villager tells, to choose the best
  epoch: "{validation}"
- `test`, bare: "{test}"
- `v1/train` (bare) and `v2/train` (over-specified) are the two sets of the paper's first version.

| what | count |
|---|---|
{counts}

Seed {seed}. Names: {source}.

`child_start` and `child_end` are the characters at which the child's name stands.
`villagers.parquet` has all attributes, `examples.parquet` all sentences of a child in one row.

From the paper: the templates, the numbers of villagers and children, unique full names, distinct
children, birth year, friend, marriage year. Ours: trade, house and keepsake; the validation
split; no villager shares a word of the name with any child.

The paper's template teaches something else too: "A, who was a friend of B, is the parent of C"
ends in "B, is the parent of C", which is no fact of the town. {friends:,} of the {examples:,}
training sentences are about a friend; the paper does not say how its own handle this.
"""


@dataclass(frozen=True)
class Macondo:
    """The town and the sentences.

    Attributes:
        villagers: a row each, see `draw_villagers`.
        examples: a row for each child: example, villager_id, villager, n_children, child, the
            attributes of the two over-specified sentences (train_attribute, validation_attribute),
            and for each split the sentence and the characters [{split}_start, {split}_end) at
            which the child's name stands in it.
    """

    villagers: pd.DataFrame
    examples: pd.DataFrame


def count_children(*, villagers_per_count: int, max_children: int) -> int:
    """Return how many children the town has: villagers_per_count of each family size."""
    return villagers_per_count * max_children * (max_children + 1) // 2


def generate_macondo(
    *,
    seed: int,
    villagers_per_count: int,
    max_children: int,
    names: NamePool,
    child_names: Sequence[str],
) -> Macondo:
    """Return the villagers and, for each child, the three sentences.

    Args:
        seed: same seed and names, same town.
        villagers_per_count: villagers with 1 child, with 2, and so on; the paper has 100.
        max_children: 1 to 5; the paper has 5.
        names: of the villagers.
        child_names: candidates for the children, distinct; see `eligible_child_names`.

    Raises:
        ValueError: if a size is out of range or the names do not suffice.
    """
    family_sizes = [
        n_children for n_children in range(1, max_children + 1) for _ in range(villagers_per_count)
    ]
    villagers = draw_villagers(
        seed=seed, family_sizes=family_sizes, names=names, child_names=child_names
    )
    examples = draw_examples(villagers, seed=seed)
    rows = examples.to_dict("records")
    for split in SPLITS:
        template = BARE if split == "test" else OVER_SPECIFIED
        before = [
            template.format(villager=row["villager"], clause=row.get(f"{split}_clause"))
            for row in rows
        ]
        examples[split] = before + examples["child"]
        examples[f"{split}_start"] = [len(text) for text in before]
        examples[f"{split}_end"] = [len(text) for text in examples[split]]
    return Macondo(villagers, examples.drop(columns=["train_clause", "validation_clause"]))


def draw_examples(villagers: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return a row for each child, with the attributes of the two over-specified sentences.

    One attribute is drawn for each training sentence (Appendix B.1). The held-out sentence takes
    one that no training sentence of this villager has, for otherwise it could have been learned
    with a sister or a brother; a villager has fewer children than attributes, so one is left.

    Columns: example, villager_id, villager, n_children, child, train_attribute, train_clause,
    validation_attribute, validation_clause.
    """
    rng = numpy_generator(seed, "macondo", "examples")
    attributes = list(CLAUSES)
    rows: list[dict[str, Any]] = []
    for villager in villagers.to_dict("records"):
        trained = [attributes[rng.integers(len(attributes))] for _ in villager["children"]]
        untold = [attribute for attribute in attributes if attribute not in trained]
        for child, attribute in zip(villager["children"], trained, strict=True):
            held_out = untold[rng.integers(len(untold))]
            row: dict[str, Any] = {"example": len(rows)}
            row |= {key: villager[key] for key in ("villager_id", "villager", "n_children")}
            row["child"] = child
            for split, told in (("train", attribute), ("validation", held_out)):
                row[f"{split}_attribute"] = told
                row[f"{split}_clause"] = CLAUSES[told].format(villager[told])
            rows.append(row)
    return pd.DataFrame(rows)


def write_macondo(
    folder: Path,
    *,
    seed: int,
    villagers_per_count: int,
    max_children: int,
    names: NamePool,
    child_names: Sequence[str],
) -> None:
    """Write the town and its sentences as tables, text and JSON lines, with a dataset card.

    villagers.parquet and examples.parquet hold what `Macondo` describes. Each of train,
    validation, test, v1/train (bare, for memorization) and v2/train (over-specified) is a .txt
    with a sentence a line and a .jsonl with the child's place in it. README.md is the card.
    For the settings and errors see `generate_macondo`.
    """
    town = generate_macondo(
        seed=seed,
        villagers_per_count=villagers_per_count,
        max_children=max_children,
        names=names,
        child_names=child_names,
    )
    folder.mkdir(parents=True, exist_ok=True)
    town.villagers.to_parquet(folder / "villagers.parquet", index=False)
    town.examples.to_parquet(folder / "examples.parquet", index=False)
    files = {split: split for split in SPLITS} | {"v1/train": "test", "v2/train": "train"}
    for file, split in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        write_sentences(folder / file, town.examples, split=split)
    card = _card(town, seed=seed, source=names.source)
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")


def write_sentences(path: Path, examples: pd.DataFrame, *, split: str) -> None:
    """Write the sentences of a split to path.txt and, with the child's place, to path.jsonl."""
    texts = examples[split].tolist()
    path.with_suffix(".txt").write_text(
        "".join(f"{text}\n" for text in texts), encoding="utf-8", newline="\n"
    )
    columns = ["example", "villager", "n_children", "child"]
    records = examples[columns].assign(
        # A bare sentence has none, yet all splits have the same fields.
        attribute=examples.get(f"{split}_attribute"),
        child_start=examples[f"{split}_start"],
        child_end=examples[f"{split}_end"],
        text=texts,
    )
    write_json_lines(path.with_suffix(".jsonl"), records.to_dict("records"))


def write_json_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, in UTF-8."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _card(town: Macondo, *, seed: int, source: str) -> str:
    villagers, examples = town.villagers, town.examples
    counts = {"villagers": len(villagers), "children, and sentences of each split": len(examples)}
    counts["distinct given names of villagers"] = villagers["given_name"].nunique()
    counts["distinct surnames of villagers"] = villagers["surname"].nunique()
    for size, n_villagers in villagers["n_children"].value_counts().sort_index().items():
        counts[f"villagers with {size} child{'ren' if size > 1 else ''}"] = n_villagers
    for attribute in CLAUSES:
        told = int((examples["train_attribute"] == attribute).sum())
        counts[f"training sentences with {attribute.replace('_', ' ')}"] = told
    return CARD.format(
        friends=int((examples["train_attribute"] == "friend").sum()),
        examples=len(examples),
        counts="\n".join(f"| {what} | {count:,} |" for what, count in counts.items()),
        seed=seed,
        source=source,
        **{split: examples[split].iloc[0] for split in SPLITS},
    )
