"""Classes of tokens: the word around each, its shape, its count in train, its fact."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from knnlm.evidence.token_classes import (
    FUNCTION_WORDS,
    SHAPES,
    core,
    count_bin,
    count_words,
    fact_masks,
    read_text,
    shape,
    word_masks,
    words_of_tokens,
)

TEXT = "Ada Lovelace , of\n1815"
#       0   4        13 15 18
# tokens as a byte-level BPE cuts them: a space belongs to the token after it
STARTS = np.array([0, 3, 8, 12, 14, 17, 18])
STOPS = np.array([3, 8, 12, 14, 17, 18, 22])


def test_every_token_of_a_word_has_that_word_and_whitespace_has_none():
    located = words_of_tokens(TEXT, STARTS, STOPS)

    assert located.words == ["Ada", "Lovelace", "Lovelace", ",", "of", "", "1815"]
    assert located.characters.tolist() == [0, 4, 8, 13, 15, 17, 18]


def test_a_token_that_holds_some_bytes_of_a_character_belongs_to_its_word():
    located = words_of_tokens("né e", np.array([0, 1, 1, 2]), np.array([1, 1, 2, 4]))

    assert located.words == ["né", "né", "né", "e"]


def test_a_text_of_whitespace_has_no_words():
    located = words_of_tokens(" \n", np.array([0, 1]), np.array([1, 2]))

    assert located.words == ["", ""]


def test_line_ends_are_not_changed_while_reading(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"a\r\nb")

    assert read_text(tmp_path / "t.txt") == "a\r\nb"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Ada", "capitalized"),
        ("The", "function"),
        ("of", "function"),
        ("engine", "content"),
        ("engine.", "content"),
        ("1,815", "number"),
        ("19th", "number"),
        ("@-@", "punctuation"),
        (",", "punctuation"),
        ("Émile", "capitalized"),
        ("", "line end"),
    ],
)
def test_the_shape_of_a_word(word, expected):
    assert shape(word) == expected


def test_function_words_are_lower_case_and_more_than_a_hundred():
    assert len(FUNCTION_WORDS) > 100
    assert all(word == word.lower() for word in FUNCTION_WORDS)


@pytest.mark.parametrize(
    ("count", "label"),
    [
        *[(0, "0"), (1, "1-2"), (2, "1-2"), (3, "3-10"), (10, "3-10"), (11, "11-50")],
        *[(50, "11-50"), (51, "51-300"), (300, "51-300"), (301, "> 300"), (10**9, "> 300")],
    ],
)
def test_bins_of_counts_have_these_borders(count, label):
    assert count_bin(count) == label


def test_words_are_counted_without_the_punctuation_around_them(tmp_path):
    (tmp_path / "train.txt").write_text('Ada , ada "Ada" Ada.\n, --\n')

    assert count_words(tmp_path / "train.txt") == Counter({"Ada": 3, "ada": 1, ",": 2, "--": 1})
    assert core("...") == "..."


def test_a_word_has_the_count_of_its_core():
    masks = word_masks(["(Ada,", "Ada"], Counter({"Ada": 2}))

    assert masks["train count: 1-2"].tolist() == [True, True]


def test_shapes_part_the_tokens_and_counts_part_the_tokens_of_words():
    words = words_of_tokens(TEXT, STARTS, STOPS).words

    masks = word_masks(words, Counter({"Ada": 2, "of": 400}))

    shapes = [mask for name, mask in masks.items() if name.startswith("shape: ")]
    bins = [mask for name, mask in masks.items() if name.startswith("train count: ")]
    assert np.sum(shapes, axis=0).tolist() == [1] * 7
    assert np.sum(bins, axis=0).tolist() == [1, 1, 1, 1, 1, 0, 1]
    assert masks["shape: capitalized"].tolist() == [True] * 3 + [False] * 4
    assert masks["train count: 1-2"].nonzero()[0].tolist() == [0]
    assert masks["train count: > 300"].nonzero()[0].tolist() == [4]
    assert masks["train count: 0"].nonzero()[0].tolist() == [1, 2, 3, 6]
    assert {name.removeprefix("shape: ") for name in masks if "shape" in name} < set(SHAPES)


FACTS = pd.DataFrame(
    {
        "document": [0, 0, 0],
        "start": [0, 4, 18],
        "end": [12, 12, 22],
        "fact": ["p.name", "p.surname", "p.born"],
        "kind": ["name", "surname", "born"],
        "told_in_train": [1, 0, 5],
    }
)


def test_a_token_states_the_fact_that_its_first_character_lies_in_the_shorter_first():
    masks = fact_masks(words_of_tokens(TEXT, STARTS, STOPS).characters, FACTS)

    places = {name: mask.nonzero()[0].tolist() for name, mask in masks.items()}
    assert places == {
        "fact told: 0": [1, 2],
        "fact told: 1-2": [0],
        "fact told: 3-10": [6],
        "fact: none": [3, 4, 5],
        "fact kind: born, told": [6],
        "fact kind: name, told": [0],
        "fact kind: surname, not told": [1, 2],
    }


def test_without_facts_no_token_states_one():
    assert list(fact_masks(np.array([0, 5]), FACTS[:0])) == ["fact: none"]
