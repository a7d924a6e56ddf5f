"""Macondo as an artifact: the town of one seed, with names that suit a tokenizer."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from knnlm.runtime.artifacts import identity, read_manifest, write_manifest
from knnlm.runtime.full_disk import named_if_full
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import partial_folder, publish
from knnlm.text.macondo.names import NamePool, eligible_child_names, load_names
from knnlm.text.macondo.town import count_children, write_macondo
from knnlm.text.tokenizer import load_pretrained, read_tokenizer

KIND = "macondo"


def build_macondo(*, macondo: Mapping[str, Any], **place: Any) -> None:
    """Write the town of one seed as an artifact of kind "macondo"; its files: `write_macondo`.

    Args:
        macondo: a town in the config: villagers_per_count, max_children and what every town has.
        place: the other arguments of `build_town`.
    """
    sizes = {key: macondo[key] for key in ("villagers_per_count", "max_children")}
    build_town(
        kind=KIND,
        town=macondo,
        n_children=count_children(**sizes),
        before="is the parent of ",
        write=partial(write_macondo, **sizes),
        **place,
    )


def build_town(
    *,
    kind: str,
    town: Mapping[str, Any],
    n_children: int,
    before: str,
    write: Callable[..., None],
    output: Path,
    fingerprint: str,
    seed: int,
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
) -> None:
    """Choose the names of a town and write it as an artifact.

    Args:
        kind: of the artifact.
        town: its settings in the config; used: names (source and path), child_names (added or
            existing), tokenizer.
        n_children: one name each.
        before: the text before a child's name.
        write: writes the files into a folder, given seed, names and child_names.
        output: the artifact.
        fingerprint: of the rule.
        seed: of all draws.
        tokenizer: the tokenizer artifact of the corpus, if `child_names` is existing and the
            town names no other one; otherwise it is not read.
        sources: the table of downloads, data/sources.csv.
        cache: where downloads stay.

    Raises:
        ValueError: if the names do not suffice or cannot be had.
    """
    names, child_names, made_from = _choose_names(
        town, needed=n_children, before=before, tokenizer=tokenizer, sources=sources, cache=cache
    )
    folder = partial_folder(output, fingerprint, {})
    with named_if_full(folder):
        write(folder, seed=seed, names=names, child_names=child_names)
    write_manifest(
        folder,
        kind=kind,
        settings=dict(town) | {"seed": seed},
        made_from=made_from,
        contents={"examples": n_children, "eligible_child_names": len(child_names)},
    )
    publish(folder, output)


def _choose_names(
    town: Mapping[str, Any],
    *,
    needed: int,
    before: str,
    tokenizer: Path | None,
    sources: Path,
    cache: Path,
) -> tuple[NamePool, list[str], dict[str, str]]:
    """Return all names, those that children may have, and the identity of what tells them."""
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
    """Return the examples of a town, a row for each child, see `knnlm.text.macondo.town.Macondo`.

    Raises:
        ArtifactError: if the folder is no whole town.
    """
    read_manifest(folder, kind=KIND)
    return pd.read_parquet(folder / "examples.parquet")
