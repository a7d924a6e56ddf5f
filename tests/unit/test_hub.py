import socket
import time
import types

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from knnlm.runtime.making import Target
from knnlm.text.corpus import build_corpus
from knnlm.text.documents import SPLITS
from knnlm.text.hub import dataset_lines, fetch, fetch_dataset

NAME = "wikitext-2-raw-v1"
REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
CARD = f"""---
configs:
- config_name: {NAME}
  data_files:
  - {{split: test, path: {NAME}/test-*}}
  - {{split: train, path: {NAME}/train-*}}
  - {{split: validation, path: {NAME}/validation-*}}
---
# A card
"""
# As on the hub: a blank line of the original text is an empty row.
ROWS = ["", " = Asahi = \n", "", " A ship <unk> 戦場 . \n"] + [" More about her . \n"] * 30


def lay_out(folder, rows=ROWS, column="text"):
    """Write a folder as the repository of WikiText is laid out on the hub, two files a split."""
    (folder / NAME).mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for split in SPLITS:
        for part, piece in enumerate((rows[:3], rows[3:])):
            table = pa.table({column: pa.array(piece, pa.string())})
            pq.write_table(table, folder / NAME / f"{split}-{part:05d}-of-00002.parquet")
    return folder


def cached(cache):
    return lay_out(cache / "Salesforce--wikitext" / REVISION / NAME)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Refuse every connection, as a machine without a network does."""

    def refuse(*arguments, **settings):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_rows_are_the_lines_of_the_text(tmp_path):
    folder = lay_out(tmp_path / "clone")

    lines = list(dataset_lines(folder, name=NAME, split="test"))

    assert lines[:4] == ["\n", " = Asahi = \n", "\n", " A ship <unk> 戦場 . \n"]
    assert "".join(lines).count("\n") == len(ROWS)


def test_a_cached_corpus_needs_no_network(tmp_path):
    cached(tmp_path / "downloads")
    output = tmp_path / "results/run/corpora/wikitext-2/text"
    corpus = {
        "source": "hub",
        "repository": "Salesforce/wikitext",
        "configuration": NAME,
        "revision": REVISION,
        "documents": "headings",
    }

    build_corpus(
        Target(output, "f", {"corpus": "wikitext-2"}),
        corpus=corpus,
        cache=tmp_path / "downloads",
    )

    expected = "".join(row if row.endswith("\n") else f"{row}\n" for row in ROWS)
    assert (output / "train.txt").read_text(encoding="utf-8") == expected


def test_a_clone_of_the_repository_stands_in_for_it(tmp_path):
    clone = lay_out(tmp_path / "clone")

    found = fetch_dataset(str(clone), name=NAME, revision=REVISION, cache=tmp_path / "downloads")

    assert found == clone


def test_without_a_network_the_remedies_come_within_seconds(tmp_path):
    started = time.monotonic()

    with pytest.raises(ValueError, match="cannot fetch dataset Salesforce/wikitext") as caught:
        fetch_dataset(
            "Salesforce/wikitext", name=NAME, revision=REVISION, cache=tmp_path / "downloads"
        )

    assert time.monotonic() - started < 30
    for remedy in ("corpus=gazetteer", "source: local", "machine with a network", "downloads"):
        assert remedy in str(caught.value)


def test_a_hub_that_stays_silent_is_given_up_in_seconds(tmp_path, monkeypatch):
    asked = []

    def silent(*arguments, timeout, **settings):
        asked.append(timeout)
        raise TimeoutError

    hub = types.SimpleNamespace(repo_info=silent)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)

    with pytest.raises(ValueError, match="cannot fetch dataset"):
        fetch_dataset("owner/data", name=NAME, revision=REVISION, cache=tmp_path)

    assert sum(asked) < 30


def test_another_revision_is_not_taken_for_the_pinned_one(tmp_path):
    cached(tmp_path)

    with pytest.raises(ValueError, match="revision abc"):
        fetch_dataset("Salesforce/wikitext", name=NAME, revision="abc", cache=tmp_path)


def stand_in(monkeypatch, download):
    """Put a hub that answers in the place of the real one."""
    hub = types.SimpleNamespace(repo_info=lambda *arguments, **settings: None)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def fetch_tokenizer(cache):
    return fetch(
        "owner/model",
        kind="model",
        revision="main",
        name="tokenizer",
        patterns=["tokenizer.json"],
        cache=cache,
        remedy="train one",
    )


def test_a_fetched_folder_is_kept_for_the_next_time(tmp_path, monkeypatch):
    calls = []

    def download(repository, *, local_dir, revision, allow_patterns, **settings):
        calls.append((repository, revision, allow_patterns))
        local_dir.mkdir(parents=True)
        (local_dir / "tokenizer.json").write_text("{}")

    stand_in(monkeypatch, download)

    first, second = fetch_tokenizer(tmp_path), fetch_tokenizer(tmp_path)

    assert first == second == tmp_path / "owner--model/main/tokenizer"
    assert (first / "tokenizer.json").is_file()
    assert calls == [("owner/model", "main", ["tokenizer.json"])]


def test_a_broken_download_is_not_taken_for_whole(tmp_path, monkeypatch):
    def break_off(repository, *, local_dir, **settings):
        local_dir.mkdir(parents=True, exist_ok=True)
        raise ConnectionError("connection reset")

    stand_in(monkeypatch, break_off)

    for _ in range(2):
        with pytest.raises(ValueError, match="connection reset; train one"):
            fetch_tokenizer(tmp_path)


def test_an_unknown_split_is_named(tmp_path):
    folder = lay_out(tmp_path / "clone")

    with pytest.raises(ValueError, match="to hold the split dev of wikitext-2-raw-v1"):
        list(dataset_lines(folder, name=NAME, split="dev"))


def test_an_unknown_configuration_is_named(tmp_path):
    folder = lay_out(tmp_path / "clone")

    with pytest.raises(ValueError, match="the split test of wikitext-9"):
        list(dataset_lines(folder, name="wikitext-9", split="test"))


def test_rows_without_text_are_refused(tmp_path):
    folder = lay_out(tmp_path / "clone", column="sentence")

    with pytest.raises(ValueError, match=r"column text of strings, got columns \['sentence'\]"):
        list(dataset_lines(folder, name=NAME, split="test"))
