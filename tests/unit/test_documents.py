import numpy as np
import pytest

from knnlm.text.documents import (
    HEADING,
    describe_split,
    document_offsets,
    read_documents,
    read_lines,
    write_split,
)

WIKITEXT = [
    " \n",
    " = Asahi = \n",
    " \n",
    " A ship . \n",
    " = = Design = = \n",
    " It had guns . \n",
    " = A = B = \n",
    " Algebra . \n",
]


def cut(folder, lines, rule):
    write_split(folder, "train", lines, rule=rule, origin="a corpus")
    return list(read_documents(folder, "train"))


def test_a_document_begins_at_each_heading_of_the_first_level(tmp_path):
    documents = cut(tmp_path, WIKITEXT, "headings")

    assert documents == ["".join(WIKITEXT[:6]), "".join(WIKITEXT[6:])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (" = A = \n", True),
        (" = A = B = ", True),
        (" = = A = = \n", False),
        (" = = A = \n", False),
        (" = A = = \n", False),
        ("= A =\n", False),
        (" = A\n", False),
        (" x = y = \n", False),
    ],
)
def test_a_heading_has_one_equals_sign_on_each_side(line, expected):
    assert (HEADING.fullmatch(line) is not None) == expected


def test_text_before_the_first_heading_is_a_document_of_its_own(tmp_path):
    documents = cut(tmp_path, ["\n", "A preface .\n", *WIKITEXT], "headings")

    assert documents[0] == "\nA preface .\n \n"
    assert len(documents) == 3


def test_headings_may_end_in_carriage_returns(tmp_path):
    documents = cut(tmp_path, [" = One = \r\n", "a\r\n", " = Two = \r\n", "b\r\n"], "headings")

    assert documents == [" = One = \r\na\r\n", " = Two = \r\nb\r\n"]


def test_blank_lines_separate_documents_and_belong_to_the_one_before(tmp_path):
    documents = cut(tmp_path, ["\n", "a\n", "b\n", "\n", " \t\n", "c\n"], "blank_lines")

    assert documents == ["\na\nb\n\n \t\n", "c\n"]


def test_every_line_with_text_can_be_a_document(tmp_path):
    documents = cut(tmp_path, ["a\n", "\n", "b\n", "c"], "lines")

    assert documents == ["a\n\n", "b\n", "c"]


def test_documents_cover_the_text_in_characters_not_bytes(tmp_path):
    lines = ["戦場 \u2013 é\n", "𐌰 end\n"]

    write_split(tmp_path, "test", lines, rule="lines", origin="a corpus")

    assert (tmp_path / "test.txt").read_bytes() == "".join(lines).encode()
    np.testing.assert_array_equal(document_offsets(tmp_path, "test"), [0, 7, 13])


def test_a_text_without_headings_names_the_other_rules(tmp_path):
    with pytest.raises(ValueError, match=r"expected my\.txt to have a line ' = Title = '.*lines"):
        write_split(tmp_path, "train", ["plain\n"], rule="headings", origin="my.txt")


def test_a_byte_that_is_not_utf8_is_named_by_its_line(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"good\n" + "né\n".encode("latin1"))

    with pytest.raises(ValueError, match=r"train\.txt to be UTF-8, got byte 0xe9 .* 1 of line 2"):
        list(read_lines(path))


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("a\u2028b\rc\x0bd\ne", encoding="utf-8", newline="")

    assert list(read_lines(path)) == ["a\u2028b\rc\x0bd\n", "e"]


def test_counts_are_those_of_the_text(tmp_path):
    text = "ein \u2013 Wort\u3000und\n\n" * 60 + "last"
    write_split(tmp_path, "train", text.splitlines(keepends=True), rule="lines", origin="x")

    assert describe_split(tmp_path, "train", origin="x") == {
        "documents": 61,
        "characters": len(text),
        "bytes": len(text.encode()),
        "words": len(text.split()),
        "lines": text.count("\n"),
    }


@pytest.mark.parametrize(
    ("text", "amount"), [("", "no text at all"), (" \n\n", "no text"), ("two words\n", "only 2")]
)
def test_a_split_without_enough_words_is_refused(tmp_path, text, amount):
    write_split(
        tmp_path, "test", text.splitlines(keepends=True), rule="lines", origin="folder/test.txt"
    )

    with pytest.raises(ValueError, match=rf"folder/test\.txt to have at least 100.*{amount}"):
        describe_split(tmp_path, "test", origin="folder/test.txt")
