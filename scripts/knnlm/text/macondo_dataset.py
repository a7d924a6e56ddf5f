"""Macondo as an artifact: the town of one seed, with names that suit a tokenizer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.runtime.artifacts import (
    identity,
    partial_folder,
    publish,
    read_manifest,
    write_manifest,
)
from knnlm.runtime.logs import LOGGER
from knnlm.text.macondo import count_children, write_macondo
from knnlm.text.names import NamePool, eligible_child_names, load_names
from knnlm.text.tokenizer import load_pretrained, read_tokenizer

KIND = "macondo"


def build_macondo(
    *,
    output: Path,
    fingerprint: str,
    seed: int,
    macondo: Mapping[str, Any],
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
) -> None:
    """Write the town of one seed as an artifact of kind "macondo"; its files: `write_macondo`.

    Args:
        output: the artifact.
        fingerprint: of the rule.
        seed: of all draws.
        macondo: its block in the config: villagers_per_count, max_children, names (source and
            path), child_names (added or existing), tokenizer.
        tokenizer: the tokenizer artifact of the corpus, if `child_names` is existing and the
            block names no other one; otherwise it is not read.
        sources: the table of downloads, data/sources.csv.
        cache: where downloads stay.

    Raises:
        ValueError: if the names do not suffice or cannot be had.
    """
    sizes = {key: macondo[key] for key in ("villagers_per_count", "max_children")}
    needed = count_children(**sizes)
    names, child_names, made_from = choose_names(
        macondo, needed=needed, tokenizer=tokenizer, sources=sources, cache=cache
    )
    partial = partial_folder(output, fingerprint)
    write_macondo(partial, seed=seed, names=names, child_names=child_names, **sizes)
    write_manifest(
        partial,
        kind=KIND,
        settings=dict(macondo) | {"seed": seed},
        made_from=made_from,
        contents={"examples": needed, "eligible_child_names": len(child_names)},
    )
    publish(partial, output)


def choose_names(
    town: Mapping[str, Any],
    *,
    needed: int,
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
    before: str = "is the parent of ",
) -> tuple[NamePool, list[str], dict[str, str]]:
    """Return the names of a town, those that children may have, and the identity of their origin.

    Args:
        town: names (source and path), child_names and tokenizer, as in the config.
        needed: number of children.
        tokenizer: as in `build_macondo`; so are the errors.
        sources: the table of downloads.
        cache: where downloads stay.
        before: the text before a child's name.
    """
    names = load_names(
        source=town["names"]["source"],
        folder=Path(town["names"].get("path") or cache / "names"),
        sources=sources,
    )
    encode, made_from = _encoder(town, tokenizer, cache)
    child_names = eligible_child_names(
        names.given,
        child_names=town["child_names"],
        needed=needed,
        encode=encode,
        before=before,
    )
    LOGGER.info("%s names may be a child's, %s are needed", len(child_names), needed)
    return names, child_names, made_from


def _encoder(
    macondo: Mapping[str, Any], tokenizer: Path | None, cache: Path
) -> tuple[Callable[[str], list[int]], dict[str, str]]:
    """Return how a text becomes tokens, and the identity of the artifact that says so, if any."""
    if macondo["child_names"] != "existing":
        return lambda text: [], {}
    if macondo["tokenizer"] is not None:
        vocabulary, origin = load_pretrained(macondo["tokenizer"], cache=cache)[0], {}
    else:
        vocabulary = read_tokenizer(tokenizer)
        origin = {"tokenizer": identity(tokenizer, kind="tokenizer")}
    return lambda text: vocabulary.encode(text, add_special_tokens=False).ids, origin


def read_examples(folder: Path) -> pd.DataFrame:
    """Return the examples of a town, a row for each child, see `knnlm.text.macondo.Macondo`.

    Raises:
        ArtifactError: if the folder is no whole town.
    """
    read_manifest(folder, kind=KIND)
    return pd.read_parquet(folder / "examples.parquet")
