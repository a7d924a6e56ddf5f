"""Macondo-Conv as an artifact: the questions and answers of one seed's town."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.runtime.artifacts import read_manifest
from knnlm.runtime.making import Target
from knnlm.text.macondo.chat import Message, write_conversations
from knnlm.text.macondo.dataset import build_town, choose_names
from knnlm.text.macondo.town import SPLITS

KIND = "macondo_conv"
SPACED = "Assistant: "  # what stands before an answer in the minimal template


def build_conversations(
    target: Target,
    *,
    town: Mapping[str, Any],
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
) -> None:
    """Write the conversations of one seed (kind "macondo_conv"); files: `write_conversations`.

    Args:
        target: the artifact; its seed is that of all draws.
        town: its block in the config: villagers, children_each, after_space and what every town
            has.
        tokenizer: with sources and cache, see `choose_names`, whose errors it raises.
        sources: the table of downloads.
        cache: where downloads stay.
    """
    sizes = {"n_villagers": town["villagers"], "children_each": town["children_each"]}
    needed = town["villagers"] * town["children_each"]
    chosen = choose_names(
        town,
        needed=needed,
        before=SPACED if town["after_space"] else "",
        tokenizer=tokenizer,
        sources=sources,
        cache=cache,
    )
    write = partial(write_conversations, **sizes)
    build_town(target, kind=KIND, town=town, chosen=chosen, n_children=needed, write=write)


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
