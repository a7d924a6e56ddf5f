"""Macondo-Conv as an artifact: the questions and answers of one seed's town."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.runtime.artifacts import partial_folder, publish, read_manifest, write_manifest
from knnlm.text.macondo import SPLITS
from knnlm.text.macondo_chat import Message, write_conversations
from knnlm.text.macondo_dataset import choose_names

KIND = "macondo_conv"
SPACED = "Assistant: "  # what stands before an answer in the minimal template


def build_conversations(
    *,
    output: Path,
    fingerprint: str,
    seed: int,
    town: Mapping[str, Any],
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
) -> None:
    """Write the conversations of one seed (kind "macondo_conv"); files: `write_conversations`.

    Args:
        output: the artifact.
        fingerprint: of the rule.
        seed: of all draws.
        town: its block in the config: villagers, children_each, names (source and path),
            child_names (added or existing), after_space, tokenizer.
        tokenizer: the tokenizer artifact of the corpus, if `child_names` is existing and the
            block names no other one; otherwise it is not read.
        sources: the table of downloads, data/sources.csv.
        cache: where downloads stay.

    Raises:
        ValueError: if the names do not suffice or cannot be had.
    """
    needed = town["villagers"] * town["children_each"]
    names, child_names, made_from = choose_names(
        town,
        needed=needed,
        tokenizer=tokenizer,
        sources=sources,
        cache=cache,
        before=SPACED if town["after_space"] else "",
    )
    partial = partial_folder(output, fingerprint)
    write_conversations(
        partial,
        seed=seed,
        n_villagers=town["villagers"],
        children_each=town["children_each"],
        names=names,
        child_names=child_names,
    )
    write_manifest(
        partial,
        kind=KIND,
        settings=dict(town) | {"seed": seed},
        made_from=made_from,
        contents={"examples": needed, "eligible_child_names": len(child_names)},
    )
    publish(partial, output)


def read_conversations(folder: Path) -> tuple[pd.DataFrame, dict[str, list[list[Message]]]]:
    """Return a row for each child, and for each split the messages in the same order.

    Raises:
        ArtifactError: if the folder is no whole artifact.
    """
    read_manifest(folder, kind=KIND)
    messages = {}
    for split in SPLITS:
        with messages_path(folder, split).open(encoding="utf-8") as lines:
            messages[split] = [json.loads(line)["messages"] for line in lines]
    return pd.read_parquet(folder / "examples.parquet"), messages


def messages_path(folder: Path, split: str) -> Path:
    """Return the file of a split that fine-tuning services take: a conversation a line."""
    return folder / f"{split}.messages.jsonl"
