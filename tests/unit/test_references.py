"""Reference readers and told facts of a small text whose documents are of several lengths."""

import numpy as np
import pandas as pd
import pytest

from knnlm.evidence.references import READERS, reference_rows, told_rows
from knnlm.runtime.artifacts import save_array, write_manifest

END, NEWLINE, BEGINS, GOES_ON = range(4)  # a word is two tokens
SIZES = np.tile([1, 2, 3], 12)  # words of each document
N_TOKENS = 2 * SIZES + 1
BOOTSTRAP = {"samples": 50, "seed": 0}


@pytest.fixture
def folders(tmp_path):
    """A reader needs half a nat for each token, and the documents are told in another order."""
    text, tokens = tmp_path / "text", tmp_path / "tokens"
    text.mkdir()
    stream = np.concatenate([[END, *[BEGINS, GOES_ON] * n, NEWLINE] for n in SIZES])
    save_array(tokens / "test.npy", stream.astype(np.uint16))
    save_array(tokens / "test.starts.npy", np.arange(len(stream)))
    save_array(tokens / "test.documents.npy", np.cumsum([0, *(N_TOKENS + 1)]))
    save_array(tokens / "test.words.npy", (stream == BEGINS).astype(np.uint8))
    save_array(tokens / "test.lines.npy", (stream == NEWLINE).astype(np.uint8))
    contents = {"vocabulary_size": 4, "end_of_document": END}
    write_manifest(tokens, kind="tokens", settings={}, made_from={}, contents=contents)
    nats = pd.DataFrame({"document": np.arange(len(SIZES))} | dict.fromkeys(READERS, N_TOKENS / 2))
    nats.iloc[::-1].to_parquet(text / "test.references.parquet")
    return text, tokens


def test_nats_are_spread_over_the_tokens_and_words_of_the_same_document(folders):
    rows = {row["metric"]: row for row in reference_rows({}, *folders, bootstrap=BOOTSTRAP)}

    counts = {"token": N_TOKENS.sum(), "word": (SIZES + 1).sum(), "raw_word": SIZES.sum()}
    for unit, count in counts.items():
        row = rows[f"perplexity_per_{unit}"]
        assert row["n"] == count
        assert row["value"] == pytest.approx(np.exp(N_TOKENS.sum() / 2 / count))
    per_token = rows["perplexity_per_token"]
    assert per_token["ci_low"] == pytest.approx(per_token["ci_high"])


def test_a_fact_that_test_mentions_again_counts_once_and_as_mentions_each_time(tmp_path):
    facts = pd.DataFrame({"fact": ["a", "a", "a", "b"], "told_in_train": [0, 0, 0, 1]})
    facts.to_parquet(tmp_path / "test.facts.parquet")

    shares = {row["setting"]: (row["value"], row["n"]) for row in told_rows({}, tmp_path)}

    assert shares == {"distinct facts": (0.5, 2), "mentions": (0.25, 4)}
