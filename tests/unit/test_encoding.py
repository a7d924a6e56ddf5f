from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace, Sequence

from knnlm.runtime.artifacts import identity, read_manifest, verify_checksums, write_manifest
from knnlm.runtime.making import Target
from knnlm.text import encoding, tokenizer
from knnlm.text.documents import SPLITS, describe_split, write_split
from knnlm.text.encoding import encode_documents, tokenize_corpus
from knnlm.text.tokenizer import END_OF_DOCUMENT, build_tokenizer, train_tokenizer
from knnlm.text.tokens import load_tokens

DOCUMENTS = [
    " = The mill = \n \n The miller 's mill , 1867 \u2013 1941 .\n\n   It fell .\r\n",
    "戦場\u3000é e\u0301 𐌰\t\n",
    "no line end ",
    "\n",
    " = The mill = \n The end of <|endoftext|> the mill\n",
]
READER = train_tokenizer(DOCUMENTS, vocabulary_size=300)
READER.encode_special_tokens = True
LINES = st.text(alphabet="ab 1\u2013戦𐌰é\t\r\u3000'.", max_size=12).map(lambda line: f"{line}\n")


def encode(documents, reader=READER):
    return encode_documents(reader, documents, end_of_document=0, dtype=np.uint16)


def texts_of(stream, reader=READER):
    """Return the text of each document, decoded."""
    return [
        reader.decode(stream.tokens[a + 1 : b].tolist(), skip_special_tokens=False)
        for a, b in pairwise(stream.documents)
    ]


def assert_covers(stream, text):
    """Compare words, lines and tiling with what the definition says, token by token."""
    is_space = [character.isspace() for character in text]
    heads = [not s and (i == 0 or is_space[i - 1]) for i, s in enumerate(is_space)]
    bounds = [*stream.starts.tolist(), len(text)]
    spans = list(pairwise(bounds))
    assert bounds[0] == 0
    assert all(a <= b for a, b in spans)
    assert stream.words.tolist() == [sum(heads[a:b]) for a, b in spans]
    assert stream.lines.tolist() == [text[a:b].count("\n") for a, b in spans]
    assert stream.words.sum() == len(text.split())
    assert stream.lines.sum() == text.count("\n")


def test_each_document_is_the_end_token_and_then_its_text():
    stream = encode(DOCUMENTS)

    heads = stream.documents[:-1]
    assert (stream.tokens[heads] == 0).all()
    assert (stream.tokens == 0).sum() == len(DOCUMENTS)
    assert stream.documents[-1] == stream.n_tokens
    assert texts_of(stream) == DOCUMENTS
    lengths = [len(document) for document in DOCUMENTS]
    np.testing.assert_array_equal(stream.starts[heads], np.cumsum([0, *lengths[:-1]]))


def test_words_and_lines_belong_to_the_token_that_covers_them():
    assert_covers(encode(DOCUMENTS), "".join(DOCUMENTS))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(LINES, min_size=1, max_size=4).map("".join), min_size=1, max_size=5))
def test_any_documents_come_back_with_their_words_and_lines(documents):
    stream = encode(documents)

    assert texts_of(stream) == documents
    assert_covers(stream, "".join(documents))


def test_the_end_token_covers_nothing():
    stream = encode(DOCUMENTS)

    heads = stream.documents[:-1]
    np.testing.assert_array_equal(stream.starts[heads], stream.starts[heads + 1])


def test_a_character_of_several_tokens_belongs_to_the_first():
    stream = encode(["\u2042 x"])  # three bytes, never merged

    assert stream.n_tokens == 6
    assert stream.starts.tolist() == [0, 0, 1, 1, 1, 2]
    assert stream.words.tolist() == [0, 1, 0, 0, 0, 1]


def test_batches_and_parts_change_nothing(monkeypatch):
    documents = [document * 20 for document in DOCUMENTS]
    expected = encode(documents)
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 50)
    monkeypatch.setattr(tokenizer, "PART_CHARACTERS", 30)

    actual = encode(documents)

    for name in ("tokens", "starts", "documents", "words", "lines"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))


def test_a_tokenizer_that_marks_the_head_of_a_text_gets_documents_whole(monkeypatch):
    reader = Tokenizer(BPE({"</s>": 0, "▁": 1, "a": 2, "▁a": 3}, [("▁", "a")]))
    reader.normalizer = Sequence([Prepend("▁"), Replace(" ", "▁")])  # as Llama 2 and Mistral
    monkeypatch.setattr(tokenizer, "PART_CHARACTERS", 4)

    stream = encode(["aa a a a a a"], reader)

    assert stream.tokens.tolist() == [0, 3, 2, 3, 3, 3, 3, 3]
    assert_covers(stream, "aa a a a a a")


def test_a_token_of_too_many_lines_is_refused():
    reader = train_tokenizer(["a"], vocabulary_size=257)
    reader.add_tokens([AddedToken("\n" * 300)])

    with pytest.raises(ValueError, match="at most 255 words or lines, got 300"):
        encode(["a" + "\n" * 300], reader)


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "text"
    for number, split in enumerate(SPLITS):
        lines = "".join(DOCUMENTS[number:] * 30).splitlines(keepends=True)
        write_split(folder, split, lines, rule="lines", origin="x")
    contents = {split: describe_split(folder, split, origin="x") for split in SPLITS}
    write_manifest(folder, kind="text", settings={}, made_from={}, contents=contents)
    return folder


def test_the_artifact_holds_every_split_and_what_it_was_made_from(tmp_path, text):
    block = {"source": "trained", "vocabulary_size": 290}
    made = tmp_path / "tokenizer"
    build_tokenizer(Target(made, "f"), text=text, tokenizer=block, cache=tmp_path)

    few = {split: {"a text": 1} for split in SPLITS}
    tokenize_corpus(Target(tmp_path / "tokens", "f"), text=text, tokenizer=made, needed=few)

    verify_checksums(tmp_path / "tokens", kind="tokens")
    manifest = read_manifest(tmp_path / "tokens", kind="tokens")
    assert manifest["made_from"] == {
        "text": identity(text, kind="text"),
        "tokenizer": identity(made, kind="tokenizer"),
    }
    assert manifest["contents"]["vocabulary_size"] == 290
    assert END_OF_DOCUMENT in (made / "tokenizer.json").read_text(encoding="utf-8")
    for split in SPLITS:
        stream = load_tokens(tmp_path / "tokens", split)
        written = (text / f"{split}.txt").read_bytes().decode()
        assert stream.tokens.dtype == np.uint16
        assert "".join(texts_of(stream, tokenizer.read_tokenizer(made))) == written
        assert_covers(stream, written)
        assert manifest["contents"][split]["tokens"] == stream.n_tokens


def test_a_split_too_short_for_a_window_or_k_is_named_before_anything_expensive(tmp_path, text):
    made = tmp_path / "tokenizer"
    block = {"source": "trained", "vocabulary_size": 290}
    build_tokenizer(Target(made, "f"), text=text, tokenizer=block, cache=tmp_path)
    few, many = {"search.k": 1}, {"search.k": 1, "models.base.context": 10**9}
    needed = {"train": few, "validation": many, "test": few}

    with pytest.raises(
        ValueError,
        match=r"the validation split to have at least 1,000,000,000 tokens, which models\.base\."
        r"context asks for, got 1,500; use more text",
    ):
        tokenize_corpus(Target(tmp_path / "tokens", "f"), text=text, tokenizer=made, needed=needed)
