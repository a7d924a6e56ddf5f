"""Text artifacts: the splits of a corpus as text files, and where their documents begin."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.artifacts import atomic_path, load_array, save_array

SPLITS = ("train", "validation", "test")
MINIMUM_WORDS = 100  # below this a perplexity means nothing; windows check what they need
# The title of an article in WikiText, " = Title = "; " = = Section = = " is a deeper level.
HEADING = re.compile(r" = (?!= )[^\r\n]+(?<! =) = \r?\n?")
# Whether a line of text begins a document, given the line and whether a blank one precedes it.
DOCUMENT_RULES: dict[str, Callable[[str, bool], bool]] = {
    "headings": lambda line, after_blank: HEADING.fullmatch(line) is not None,
    "blank_lines": lambda line, after_blank: after_blank,
    "lines": lambda line, after_blank: True,
}


def read_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file, each with its "\n"; no other character ends a line.

    Raises:
        ValueError: naming the first line that is not UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"expected {path} to be UTF-8, got byte 0x{line[error.start]:02x} at position "
                    f"{error.start} of line {number}; convert it, for example with "
                    "iconv -f latin1 -t utf-8"
                ) from error


def write_split(folder: Path, split: str, lines: Iterable[str], *, rule: str, origin: str) -> None:
    """Write the text of one split, unchanged, and the character offsets of its documents.

    Text before the first heading is a document of its own; blank lines belong to the document
    before them, and at the very start to the first one. So documents cover the text.

    Args:
        folder: gets {split}.txt and {split}.documents.npy, int64 (n_documents + 1,).
        split: its name.
        lines: the text, line by line, line ends included.
        rule: what begins a document: a key of `DOCUMENT_RULES`.
        origin: where the text is from, for messages.

    Raises:
        ValueError: if documents begin at headings and there is none.
    """
    starts: list[int] = []
    position, after_blank, found = 0, True, False
    with (
        atomic_path(folder / f"{split}.txt") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        for line in lines:
            file.write(line)
            blank = not line.strip()
            if not blank:
                begins = DOCUMENT_RULES[rule](line, after_blank)
                found |= begins
                if begins or not starts:
                    starts.append(position if starts else 0)
            position += len(line)
            after_blank = blank
    if starts and not found:
        raise ValueError(
            f"expected {origin} to have a line ' = Title = ' at the head of each document, got "
            "none; set `documents` of the corpus to blank_lines or lines"
        )
    save_array(folder / f"{split}.documents.npy", np.array([*starts, position], dtype=np.int64))


def write_documents(folder: Path, split: str, documents: Iterable[str]) -> None:
    """Write the text of one split from its documents, unchanged, and where they begin."""
    ends = [0]
    with (
        atomic_path(folder / f"{split}.txt") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        for document in documents:
            file.write(document)
            ends.append(ends[-1] + len(document))
    save_array(folder / f"{split}.documents.npy", np.array(ends, dtype=np.int64))


def describe_split(folder: Path, split: str, *, origin: str) -> dict[str, int]:
    r"""Return how many documents, characters, bytes, words and lines one split has.

    Words are what whitespace separates; lines are counted by their "\n".

    Raises:
        ValueError: if the split is empty or has fewer than `MINIMUM_WORDS` words.
    """
    path = folder / f"{split}.txt"
    counts = {"documents": len(document_offsets(folder, split)) - 1}
    counts |= {"characters": 0, "bytes": path.stat().st_size, "words": 0, "lines": 0}
    for line in read_lines(path):
        counts["characters"] += len(line)
        counts["words"] += len(line.split())
        counts["lines"] += line.endswith("\n")
    if counts["words"] < MINIMUM_WORDS:
        amount = f"only {counts['words']:,} words" if counts["words"] else "no text at all"
        raise ValueError(
            f"expected {origin} to have at least {MINIMUM_WORDS:,} words, got {amount}; "
            "give this split more text"
        )
    return counts


def document_offsets(folder: Path, split: str) -> NDArray[np.int64]:
    """Return the character offsets of a split's documents: (n_documents + 1,), from 0."""
    return load_array(folder / f"{split}.documents.npy", dtype=np.int64)


def read_documents(folder: Path, split: str) -> Iterator[str]:
    """Yield the documents of a split in order, holding one at a time."""
    with (folder / f"{split}.txt").open(encoding="utf-8", newline="") as file:
        for length in np.diff(document_offsets(folder, split)).tolist():
            yield file.read(length)
