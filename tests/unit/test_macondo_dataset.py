"""Macondo as an artifact: names that suit the tokenizer, the same bytes for the same seed."""

from pathlib import Path

import pytest

from knnlm.runtime.artifacts import identity, read_manifest, write_manifest
from knnlm.runtime.making import Target
from knnlm.text.macondo.dataset import build_macondo, read_examples
from knnlm.text.macondo.names import faker_names
from knnlm.text.tokenizer import (
    END_OF_DOCUMENT,
    read_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

SOURCES = Path(__file__).parents[2] / "data" / "sources.csv"
TOWN = {
    "villagers_per_count": 3,
    "max_children": 2,
    "names": {"source": "faker", "path": None},
    "child_names": "added",
    "tokenizer": None,
}


def build(output, *, tokenizer=None, seed=0, **changed):
    build_macondo(
        Target(output, "town", {"seed": str(seed)}),
        macondo={**TOWN, **changed},
        tokenizer=tokenizer,
        sources=SOURCES,
        cache=output.parent,
    )
    return output


@pytest.fixture
def tokenizer(tmp_path):
    """The artifact of a tokenizer that has twenty given names as tokens."""
    names = [name for name in faker_names().given if len(name) > 4][:20]
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    texts = [f"is the parent of {name}" for name in names] * 3
    save_tokenizer(
        folder, train_tokenizer(texts, vocabulary_size=400), end_of_document=END_OF_DOCUMENT
    )
    write_manifest(folder, kind="tokenizer", settings={}, made_from={}, contents={})
    return folder


def test_the_same_seed_builds_the_same_town(tmp_path):
    one, other = build(tmp_path / "one"), build(tmp_path / "other")

    assert identity(one, kind="macondo") == identity(other, kind="macondo")
    third = build(tmp_path / "third", seed=1)
    assert identity(one, kind="macondo") != identity(third, kind="macondo")
    assert read_manifest(one, kind="macondo")["contents"]["examples"] == 3 * (1 + 2)


def test_existing_names_are_tokens_of_the_corpus_tokenizer(tmp_path, tokenizer):
    town = build(tmp_path / "town", tokenizer=tokenizer, child_names="existing")

    vocabulary = read_tokenizer(tokenizer)
    for name in read_examples(town)["child"]:
        assert len(vocabulary.encode(f" {name}", add_special_tokens=False).ids) == 1
    recorded = read_manifest(town, kind="macondo")["made_from"]
    assert recorded == {"tokenizer": identity(tokenizer, kind="tokenizer")}


def test_existing_names_can_be_those_of_a_pretrained_tokenizer(tmp_path, tokenizer):
    named = {**TOWN, "child_names": "existing", "tokenizer": str(tokenizer)}
    town = tmp_path / "town"
    build_macondo(
        Target(town, "town", {"seed": "0"}),
        macondo=named,
        tokenizer=None,
        sources=SOURCES,
        cache=tmp_path,
    )
    other = build(tmp_path / "other", tokenizer=tokenizer, child_names="existing")

    assert read_examples(town).equals(read_examples(other))


def test_too_few_existing_names_are_counted_in_the_error(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"300 children need names of a single token, found \d+"):
        build(
            tmp_path / "town",
            tokenizer=tokenizer,
            child_names="existing",
            villagers_per_count=100,
        )
