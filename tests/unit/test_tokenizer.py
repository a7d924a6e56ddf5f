import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from knnlm.runtime.artifacts import identity, read_manifest, write_manifest
from knnlm.runtime.making import Target
from knnlm.text import tokenizer as module
from knnlm.text.documents import SPLITS, write_split
from knnlm.text.tokenizer import (
    END_OF_DOCUMENT,
    add_words,
    build_tokenizer,
    load_pretrained,
    parts,
    read_tokenizer,
    save_tokenizer,
    train_tokenizer,
    vocabulary_size,
)

TEXT = [
    " = The mill = \n The miller 's mill is the oldest of the mills , said to be haunted . \n",
    " = Anna Prar = \n Anna ( 1867 \u2013 1941 ) was the miller 's daughter , not Annabel . \n",
] * 4
STRANGE = "  戦場\u3000é e\u0301 \x00 𐌰\t\r\n\n   ends <|endoftext|> \u2028 I'll\n"


@pytest.fixture
def trained():
    return train_tokenizer(TEXT, vocabulary_size=330)


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "text"
    for split in SPLITS:
        write_split(folder, split, TEXT, rule="lines", origin="x")
    write_manifest(folder, kind="text", settings={}, made_from={}, contents={})
    return folder


def build(tmp_path, text, **tokenizer):
    build_tokenizer(
        Target(tmp_path / "tokenizer", "f"),
        text=text,
        tokenizer=tokenizer,
        cache=tmp_path / "downloads",
    )
    return tmp_path / "tokenizer"


def test_the_vocabulary_has_the_size_asked_for(trained):
    assert vocabulary_size(trained) == 330
    assert trained.get_vocab_size() == 330


def test_training_twice_gives_the_same_tokenizer(trained):
    assert train_tokenizer(TEXT, vocabulary_size=330).to_str() == trained.to_str()


def test_any_text_is_given_back_by_decoding(tmp_path, trained):
    save_tokenizer(tmp_path, trained, end_of_document=END_OF_DOCUMENT)
    reader = read_tokenizer(tmp_path)

    ids = reader.encode(STRANGE, add_special_tokens=False).ids

    assert reader.decode(ids, skip_special_tokens=False) == STRANGE
    assert reader.token_to_id(END_OF_DOCUMENT) not in ids


def test_a_vocabulary_without_every_byte_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary_size to be at least 257 .* got 256"):
        train_tokenizer(TEXT, vocabulary_size=256)


def test_the_artifact_loads_with_tokenizers_and_with_transformers(tmp_path, text, trained):
    from transformers import AutoTokenizer

    folder = build(tmp_path, text, source="trained", vocabulary_size=330)

    manifest = read_manifest(folder, kind="tokenizer")
    assert manifest["contents"] == {"vocabulary_size": 330, "end_of_document": 0}
    assert manifest["made_from"] == {"text": identity(text, kind="text")}
    expected = trained.encode(TEXT[0]).ids
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT[0]).ids == expected
    automatic = AutoTokenizer.from_pretrained(folder)
    assert automatic(TEXT[0])["input_ids"] == expected
    assert automatic.eos_token_id == 0
    assert automatic.decode(expected) == TEXT[0]


def test_only_the_train_split_is_read(tmp_path, text):
    first = build(tmp_path, text, source="trained", vocabulary_size=330)
    before = (first / "tokenizer.json").read_bytes()
    write_split(text, "test", ["zzz zzz zzz zzz\n"] * 50, rule="lines", origin="x")
    write_manifest(text, kind="text", settings={}, made_from={}, contents={})

    second = build(tmp_path, text, source="trained", vocabulary_size=330)

    assert (second / "tokenizer.json").read_bytes() == before


@pytest.mark.parametrize("declared", ["</s>", {"content": "</s>", "special": True}])
def test_a_pretrained_folder_keeps_its_tokens_and_its_own_end(tmp_path, text, trained, declared):
    trained.add_special_tokens(["</s>"])
    trained.enable_truncation(4)
    source = tmp_path / "source"
    source.mkdir()
    trained.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(json.dumps({"eos_token": declared}))

    folder = build(tmp_path, text, source="pretrained", model=str(source))

    contents = read_manifest(folder, kind="tokenizer")["contents"]
    assert contents == {"vocabulary_size": 331, "end_of_document": 330}
    trained.no_truncation()
    assert read_tokenizer(folder).encode(TEXT[0]).ids == trained.encode(TEXT[0]).ids


def test_gpt2_needs_no_declared_end(tmp_path, trained):
    trained.save(str(tmp_path / "tokenizer.json"))

    assert load_pretrained(str(tmp_path), cache=tmp_path)[1] == "<|endoftext|>"


def test_a_pretrained_tokenizer_without_an_end_is_refused(tmp_path):
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))

    with pytest.raises(ValueError, match=r"a token that ends a text, got no eos_token in"):
        load_pretrained(str(tmp_path), cache=tmp_path)


def test_a_pretrained_tokenizer_keeps_its_special_tokens_and_its_chat_template(tmp_path, trained):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_tokenizer(theirs, trained, end_of_document=END_OF_DOCUMENT)
    config = json.loads((theirs / "tokenizer_config.json").read_text())
    declared = {**config, "bos_token": {"content": "<s>"}, "added_tokens_decoder": {}}
    (theirs / "tokenizer_config.json").write_text(json.dumps(declared))
    (theirs / "chat_template.jinja").write_text("{{ bos_token }}", encoding="utf-8")

    built = build(tmp_path, None, source="pretrained", model=str(theirs))

    kept = json.loads((built / "tokenizer_config.json").read_text())
    assert kept == {**config, "bos_token": {"content": "<s>"}, "chat_template": "{{ bos_token }}"}


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "vocab.bpe").write_text("")

    with pytest.raises(ValueError, match=r"to hold tokenizer\.json, got \['vocab\.bpe'\]; save"):
        load_pretrained(str(tmp_path), cache=tmp_path)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_long_document_has_the_tokens_of_its_parts(monkeypatch, size):
    document = "".join(TEXT) + "12 a1 \u2013 3 ... ( b )  c\n\nword    word     x\n" * 9
    trained = train_tokenizer([document], vocabulary_size=330)  # knows runs of spaces
    monkeypatch.setattr(module, "PART_CHARACTERS", size)

    cut = list(parts(document))

    assert len(cut) > 50
    assert "".join(cut) == document
    joined = [token for part in cut for token in trained.encode(part).ids]
    assert joined == trained.encode(document).ids


def test_an_added_word_is_one_token_and_its_longer_namesakes_are_not(trained):
    before = trained.encode(" Melquiades and Melquiadess").ids

    extended = add_words(trained, ["Melquiades", "Ursula"])

    ids = extended.encode(" Melquiades and Melquiadess").ids
    assert ids[0] == 330
    assert extended.encode(" Ursula").ids == [331]
    assert ids[1:] == before[-len(ids[1:]) :]
    assert extended.decode(ids) == " Melquiades and Melquiadess"
    assert vocabulary_size(trained) == 330


def test_texts_without_added_words_keep_their_tokens(trained):
    extended = add_words(trained, ["Melquiades"])

    assert [extended.encode(text).ids for text in TEXT] == [trained.encode(t).ids for t in TEXT]


def test_a_word_that_is_one_token_already_adds_none(trained):
    extended = add_words(trained, ["the", "Ursula"])

    assert vocabulary_size(extended) == 331


def test_a_word_of_two_pieces_is_refused(trained):
    with pytest.raises(ValueError, match=r"word of letters alone, got 'José Arcadio'.* 2 pieces"):
        add_words(trained, ["José Arcadio"])
