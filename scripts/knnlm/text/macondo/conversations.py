"""Macondo-Conv as an artifact: the questions and answers of one seed's town."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.runtime.artifacts import read_manifest
from knnlm.text.macondo.chat import Message, write_conversations
from knnlm.text.macondo.dataset import build_town
from knnlm.text.macondo.town import SPLITS

KIND = "macondo_conv"
SPACED = "Assistant: "  # what stands before an answer in the minimal template


def build_conversations(*, town: Mapping[str, Any], **place: Any) -> None:
    """Write the conversations of one seed (kind "macondo_conv"); files: `write_conversations`.

    Args:
        town: its block in the config: villagers, children_each, after_space and what every town
            has.
        place: the other arguments of `build_town`.
    """
    sizes = {"n_villagers": town["villagers"], "children_each": town["children_each"]}
    build_town(
        kind=KIND,
        town=town,
        n_children=town["villagers"] * town["children_each"],
        before=SPACED if town["after_space"] else "",
        write=partial(write_conversations, **sizes),
        **place,
    )


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
