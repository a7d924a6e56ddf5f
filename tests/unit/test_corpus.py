import pytest

from knnlm.runtime.artifacts import identity, read_manifest, verify_checksums
from knnlm.runtime.making import Target
from knnlm.text.corpus import build_corpus, local_files
from knnlm.text.documents import SPLITS, read_documents

ARTICLE = " = {} = \n \n" + " Some words about it . \n" * 30


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("train", "valid", "test"):
        text = "".join(ARTICLE.format(f"{name} {number}") for number in range(3))
        (folder / f"{name}.txt").write_text(text)
    return folder


def build(tmp_path, corpus, **changes):
    output = tmp_path / "results/run/corpora/mine/text"
    names = {"corpus": changes.pop("name", "mine")}
    build_corpus(Target(output, "f", names), corpus=corpus, cache=tmp_path / "downloads", **changes)
    return output


def local(folder, **more):
    return {"source": "local", "path": str(folder), "documents": "headings"} | more


def test_a_local_folder_becomes_three_splits_unchanged(tmp_path, folder):
    output = build(tmp_path, local(folder))

    names = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
    for split in SPLITS:
        text = (output / f"{split}.txt").read_bytes()
        assert text == (folder / names[split]).read_bytes()
        assert b"".join(d.encode() for d in read_documents(output, split)) == text
    assert read_manifest(output, kind="text")["contents"]["test"]["documents"] == 3
    verify_checksums(output, kind="text")


def test_the_same_text_is_the_same_artifact(tmp_path, folder):
    first = identity(build(tmp_path / "a", local(folder)), kind="text")
    second = identity(build(tmp_path / "b", local(folder)), kind="text")
    (folder / "test.txt").write_text((folder / "test.txt").read_text() + "more\n")
    third = identity(build(tmp_path / "a", local(folder)), kind="text")

    assert first == second != third


def test_validation_wins_over_valid(folder):
    (folder / "validation.txt").write_text("newer")

    assert local_files(folder)["validation"].name == "validation.txt"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"got .*nowhere, which is not a folder; correct `path`"):
        build(tmp_path, local(tmp_path / "nowhere"))


def test_a_missing_split_is_named_with_the_files_that_are_there(tmp_path, folder):
    (folder / "valid.txt").unlink()

    with pytest.raises(ValueError, match=r"validation\.txt or valid\.txt, got \['test\.txt', 'tr"):
        build(tmp_path, local(folder))


def test_an_empty_split_is_named_by_its_file(tmp_path, folder):
    (folder / "test.txt").write_text("")

    with pytest.raises(ValueError, match=r"mine/test\.txt to have at least 100 words, got no text"):
        build(tmp_path, local(folder))


def test_a_split_that_is_not_utf8_is_named_by_its_file(tmp_path, folder):
    (folder / "valid.txt").write_bytes(b" = A = \n caf\xe9\n")

    with pytest.raises(ValueError, match=r"mine/valid\.txt to be UTF-8, got byte 0xe9"):
        build(tmp_path, local(folder))


def test_nothing_is_published_when_a_split_is_bad(tmp_path, folder):
    (folder / "test.txt").write_text("")

    with pytest.raises(ValueError, match="no text"):
        build(tmp_path, local(folder))

    assert not (tmp_path / "results/run/corpora").exists()


def test_an_unknown_source_is_named_with_the_known_ones(tmp_path):
    known = "gazetteer, hub, local, part"
    with pytest.raises(ValueError, match=rf"source to be one of {known}, got 'web'"):
        build(tmp_path, {"source": "web"})


def test_the_gazetteer_is_a_corpus(tmp_path):
    corpus = {
        "source": "gazetteer",
        "seed": 0,
        "people": 60,
        "held_out": 0.25,
        "register": "articles",
    }

    output = build(tmp_path, corpus, name="gazetteer")

    contents = read_manifest(output, kind="text")["contents"]
    for split in SPLITS:
        documents = list(read_documents(output, split))
        assert len(documents) == contents[split]["documents"] > 1
        assert "".join(documents) == (output / f"{split}.txt").read_text(encoding="utf-8")
        assert (output / f"{split}.facts.parquet").is_file()


def part_of(tmp_path, folder, **more):
    whole = build(tmp_path / "whole", local(folder))
    part = {"source": "part", "of": "mine", "share": 0.4, "seed": 0} | more
    return whole, build(tmp_path / f"part{more}", part, name="part", whole=whole)


def test_a_part_has_some_train_documents_in_their_order_and_the_other_splits(tmp_path, folder):
    (folder / "train.txt").write_text("".join(ARTICLE.format(f"title {n}") for n in range(20)))

    whole, part = part_of(tmp_path, folder)

    every, some = ([*read_documents(text, "train")] for text in (whole, part))
    assert len(some) == 8
    assert some == [document for document in every if document in some]
    assert (part / "train.txt").read_bytes() == "".join(some).encode()
    for split in ("validation", "test"):
        for name in (f"{split}.txt", f"{split}.documents.npy"):
            assert (part / name).read_bytes() == (whole / name).read_bytes()
    made = read_manifest(part, kind="text")
    assert made["made_from"] == {"text": identity(whole, kind="text")}
    assert made["contents"]["source"] == {"train_documents": [8, 20]}


def test_a_part_of_a_seed_is_the_same_and_smaller_ones_lie_within_larger_ones(tmp_path, folder):
    (folder / "train.txt").write_text("".join(ARTICLE.format(f"title {n}") for n in range(20)))

    documents = {
        name: {*read_documents(part_of(tmp_path, folder, **more)[1], "train")}
        for name, more in {"": {}, "larger": {"share": 0.7}, "seed": {"seed": 1}}.items()
    }

    assert documents[""] < documents["larger"]
    assert documents[""] != documents["seed"]
