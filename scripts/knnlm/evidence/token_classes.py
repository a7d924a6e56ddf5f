"""Classes of target tokens: by the shape of their word, how often train has it, and by fact.

A token belongs to the whitespace-separated word in which its first character that is no
whitespace lies, so all tokens of a rare name count as that rare name.
"""

import bisect
import re
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FUNCTION_WORDS = frozenset(
    Path(__file__).with_name("token_classes_function_words.txt").read_text("ascii").split()
)
SHAPES = ("capitalized", "number", "content", "function", "punctuation", "line end")
COUNT_BINS = {"0": 0, "1-2": 2, "3-10": 10, "11-50": 50, "51-300": 300}  # label: its last count
BEYOND_BINS = "> 300"


class TokenWords(NamedTuple):
    """Where each token lies in its text.

    `characters` (n_tokens,) is the place of the first character that is no whitespace, or of the
    token's start if it has none; `words` (n_tokens,) is the word around it, "" for whitespace.
    """

    characters: NDArray[np.int64]
    words: list[str]


def read_text(path: Path) -> str:
    """Return a text whose characters are counted as in the artifacts: line ends are not changed."""
    return path.read_bytes().decode("utf-8")


def words_of_tokens(text: str, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> TokenWords:
    """Return the word of each token.

    Args:
        text: the whole split.
        starts: (n_tokens,), the character at which each token starts.
        stops: (n_tokens,), the character after it. A token that holds only some bytes of a
            character may stop where it starts.
    """
    spans = np.array([match.span() for match in re.finditer(r"\S+", text)], dtype=np.int64)
    begins, ends = spans.reshape(-1, 2).T
    if len(begins) == 0:
        return TokenWords(np.asarray(starts, dtype=np.int64), [""] * len(starts))
    following = np.minimum(np.searchsorted(ends, starts, side="right"), len(begins) - 1)
    first = np.maximum(starts, begins[following])
    inside = (first < np.maximum(stops, starts + 1)) & (first < ends[following])
    words = [
        text[begins[word] : ends[word]] if is_word else ""
        for word, is_word in zip(following, inside, strict=True)
    ]
    return TokenWords(np.where(inside, first, starts), words)


def core(word: str) -> str:
    """Return a word without the punctuation around it, or the word itself if nothing is left."""
    return word.strip(string.punctuation) or word


def shape(word: str) -> str:
    """Return the class of a word by its shape, one of SHAPES.

    No letter and no digit: punctuation; a digit: number; in the list of English function words,
    whatever its case: function; first letter in upper case: capitalized (so names, but also the
    first content word of a sentence); anything else: content. Whitespace is "line end".
    """
    bare = core(word)
    if not bare:
        return "line end"
    if not any(character.isalnum() for character in bare):
        return "punctuation"
    if any(character.isdigit() for character in bare):
        return "number"
    if bare.lower() in FUNCTION_WORDS:
        return "function"
    return "capitalized" if bare[0].isupper() else "content"


def count_bin(count: int) -> str:
    """Return the label of the bin of COUNT_BINS that a count falls in."""
    labels = [*COUNT_BINS, BEYOND_BINS]
    return labels[bisect.bisect_left(list(COUNT_BINS.values()), count)]


def count_words(path: Path) -> Counter[str]:
    """Return how often each word occurs in a text, without the punctuation around it.

    Upper and lower case are told apart. One pass, a line at a time.
    """
    written: Counter[str] = Counter()
    with path.open(encoding="utf-8", newline="") as lines:
        for line in lines:
            written.update(line.split())
    counts: Counter[str] = Counter()
    for word, count in written.items():
        counts[core(word)] += count
    return counts


def word_masks(words: Iterable[str], train_counts: Counter[str]) -> dict[str, NDArray[np.bool_]]:
    """Return which tokens belong to each class of word, by name; classes without one are left out.

    Args:
        words: (n_tokens,), the word of each token.
        train_counts: from `count_words` of the train split.

    Returns:
        "shape: number" and so on, which part the tokens; "train count: 1-2" and so on, which
        part the tokens that belong to a word.
    """
    words = list(words)
    shapes = np.array([shape(word) for word in words])
    bins = np.array([count_bin(train_counts[core(word)]) if word else "" for word in words])
    masks = {f"shape: {name}": shapes == name for name in SHAPES}
    masks |= {f"train count: {name}": bins == name for name in [*COUNT_BINS, BEYOND_BINS]}
    return {name: mask for name, mask in masks.items() if mask.any()}


def fact_masks(characters: NDArray[np.int64], facts: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Return which tokens state a fact, by how often train tells it and by its kind.

    Args:
        characters: (n_tokens,), from `words_of_tokens`.
        facts: columns start, end (characters of the split), kind, told_in_train. Where spans
            overlap, the shorter one wins.

    Returns:
        "fact told: 0", ..., "fact: none", which part the tokens, and "fact kind: born, told" and
        "fact kind: born, not told". Classes without a token are left out.
    """
    by_length = facts.assign(length=facts["end"] - facts["start"])
    by_length = by_length.sort_values(["length", "start"], ascending=False, kind="stable")
    last = int(max(characters.max(initial=0), facts["end"].max() if len(facts) else 0))
    owner = np.full(last + 1, -1, dtype=np.int64)
    for row, (start, end) in enumerate(zip(by_length["start"], by_length["end"], strict=True)):
        owner[start:end] = row
    fact = owner[characters]
    # row -1, no fact, comes last in both
    told = np.array([count_bin(count) for count in by_length["told_in_train"]] + ["none"])[fact]
    kinds = np.array([*by_length["kind"], ""])[fact]
    masks = {f"fact told: {name}": told == name for name in [*COUNT_BINS, BEYOND_BINS]}
    masks["fact: none"] = fact == -1
    for kind in sorted(set(facts["kind"])):
        masks[f"fact kind: {kind}, told"] = (kinds == kind) & (told != "0")
        masks[f"fact kind: {kind}, not told"] = (kinds == kind) & (told == "0")
    return {name: mask for name, mask in masks.items() if mask.any()}
