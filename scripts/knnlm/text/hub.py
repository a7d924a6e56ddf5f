"""The hub: files of a pinned revision, fetched once, and the rows of a dataset among them.

A fetched folder is laid out as the repository is, and is there whole or not at all. Reading it
needs no network, and neither does a clone or a copy of it that somebody made elsewhere.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from knnlm.runtime.logs import LOGGER

ANSWER_SECONDS = 10.0  # one request; the hub's own libraries would retry for 23 to 46 seconds


def fetch(
    repository: str,
    *,
    kind: Literal["dataset", "model"],
    revision: str,
    name: str,
    patterns: Sequence[str],
    cache: Path,
    remedy: str,
) -> Path:
    """Return a folder with files of a hub repository, from the cache or else from the network.

    Args:
        repository: "owner/name" on the hub, or a local folder laid out as one.
        kind: what the repository holds.
        revision: a commit, tag or branch.
        name: how the cache calls this selection of files.
        patterns: which files, as in `huggingface_hub.snapshot_download`.
        cache: where fetched folders stay, as {cache}/{owner}--{name}/{revision}/{name}.
        remedy: what to do without a network, for the message.

    Raises:
        ValueError: if the files are not in the cache and the hub does not answer, or does not
            have them; within seconds.
    """
    if Path(repository).is_dir():
        return Path(repository)
    folder = cache / repository.replace("/", "--") / revision / name
    if folder.is_dir():
        return folder
    # Imported here: half a second that no cached run needs to spend.
    from huggingface_hub import HfApi, snapshot_download

    unfinished = folder.with_name(f"{name}.part")
    try:
        # One short question first: a download would retry for long before it gives up.
        HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=ANSWER_SECONDS)
        LOGGER.info("fetching %s (%s) at revision %s", repository, name, revision)
        snapshot_download(
            repository,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(patterns),
            local_dir=unfinished,
            etag_timeout=ANSWER_SECONDS,
        )
    except Exception as error:  # a dozen kinds, from several libraries below the hub's own
        raise ValueError(
            f"cannot fetch {kind} {repository} ({name}, revision {revision}) from the hub, and "
            f"{folder} is not there: {error}; {remedy}, or run this once on a machine with a "
            f"network and copy {cache} here"
        ) from error
    return unfinished.replace(folder)


def fetch_dataset(repository: str, *, name: str, revision: str, cache: Path) -> Path:
    """Return the folder of one configuration of a dataset: its files and the dataset card.

    The files of a configuration are those below a folder of its name, which is how the hub lays
    out what it converted, such as Salesforce/wikitext. Arguments and errors as in `fetch`.
    """
    return fetch(
        repository,
        kind="dataset",
        revision=revision,
        name=name,
        patterns=["README.md", f"{name}/*"],
        cache=cache,
        remedy="use the default corpus (--config corpus=gazetteer) or a local folder of text "
        "(source: local)",
    )


def dataset_lines(folder: Path, *, name: str, split: str) -> Iterator[str]:
    r"""Yield the lines of one split of a dataset whose rows are lines of text.

    Rows stay as they are, except that a row without a final "\n" gets one: WikiText on the hub
    writes its blank lines as empty rows, and without them the 4,358 lines of the test split,
    which published perplexities per word count, would be 2,891.

    Args:
        folder: from `fetch_dataset`.
        name: the configuration.
        split: "train", "validation" or "test".

    Raises:
        ValueError: if the folder has no such configuration or split, or its rows no text.
    """
    from datasets import load_dataset  # a second that other corpora need not spend

    try:
        # Streamed: the rows are read in place, not copied to a second cache.
        rows = load_dataset(str(folder), name, split=split, streaming=True)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"expected {folder} to hold the split {split} of {name}, got: {error}; "
            "check `repository` and `name` in config.yaml, or remove the folder to fetch it again"
        ) from error
    for row in rows:
        line = row.get("text")
        if not isinstance(line, str):
            raise ValueError(
                f"expected the rows of {folder} ({name}, {split}) to have a column text of "
                f"strings, got columns {sorted(row)}; only datasets of lines can be a corpus"
            )
        yield line if line.endswith("\n") else f"{line}\n"
