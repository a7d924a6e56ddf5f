"""Macondo as an artifact: the town of one seed, with names that suit a tokenizer."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from knnlm.runtime.artifacts import identity, read_manifest
from knnlm.runtime.full_disk import named_if_full
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, making
from knnlm.text.macondo.names import NamePool, eligible_child_names, load_names
from knnlm.text.macondo.town import count_children, write_macondo
from knnlm.text.tokenizer import load_pretrained, read_tokenizer

KIND = "macondo"


def build_macondo(
    target: Target,
    *,
    macondo: Mapping[str, Any],
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
) -> None:
    """Write the town of one seed as an artifact of kind "macondo"; its files: `write_macondo`.

    Args:
        target: the artifact; its seed is that of all draws.
        macondo: a town in the config: villagers_per_count, max_children and what every town has.
        tokenizer: see `choose_names`.
        sources: the table of downloads, data/sources.csv.
        cache: where downloads stay.

    Raises:
        ValueError: if the names do not suffice or cannot be had.
    """
    sizes = {key: macondo[key] for key in ("villagers_per_count", "max_children")}
    needed = count_children(**sizes)
    chosen = choose_names(
        macondo,
        needed=needed,
        before="is the parent of ",
        tokenizer=tokenizer,
        sources=sources,
        cache=cache,
    )
    write = partial(write_macondo, **sizes)
    build_town(target, kind=KIND, town=macondo, chosen=chosen, n_children=needed, write=write)


class ChosenNames(NamedTuple):
    """All names, those that children may have, and the identity of what tells them."""

    pool: NamePool
    of_children: list[str]
    made_from: dict[str, str]


def build_town(
    target: Target,
    *,
    kind: str,
    town: Mapping[str, Any],
    chosen: ChosenNames,
    n_children: int,
    write: Callable[..., None],
) -> None:
    """Write a town as an artifact.

    Args:
        target: the artifact.
        kind: of the artifact.
        town: its settings in the config.
        chosen: from `choose_names`.
        n_children: one name each.
        write: writes the files into a folder, given seed, names and child_names.
    """
    settings = dict(town) | {"seed": target.seed}
    with making(target, kind=kind, made_from=chosen.made_from, settings=settings) as made:
        with named_if_full(made.folder):
            write(made.folder, seed=target.seed, names=chosen.pool, child_names=chosen.of_children)
        eligible = len(chosen.of_children)
        made.contents |= {"examples": n_children, "eligible_child_names": eligible}


def choose_names(
    town: Mapping[str, Any],
    *,
    needed: int,
    before: str,
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
) -> ChosenNames:
    """Return the names of a town.

    Args:
        town: its settings in the config; used: names (source and path), child_names (added or
            existing), tokenizer.
        needed: number of children, one name each.
        before: the text before a child's name.
        tokenizer: the tokenizer artifact of the baseline, if `child_names` is existing and the
            town names no other one; otherwise it is not read.
        sources: the table of downloads, data/sources.csv.
        cache: where downloads stay.

    Raises:
        ValueError: if the names do not suffice or cannot be had.
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
    return ChosenNames(names, child_names, made_from)


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
    """Return the examples of a town, a row for each child, see `knnlm.text.macondo.town.Macondo`.

    Raises:
        ArtifactError: if the folder is no whole town.
    """
    read_manifest(folder, kind=KIND)
    return pd.read_parquet(folder / "examples.parquet")
