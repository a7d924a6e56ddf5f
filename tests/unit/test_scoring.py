"""Queries are whole words, the same for every model, and scored as the model itself would."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_artifacts import (
    END_OF_DOCUMENT,
    MODEL,
    VOCABULARY,
    stream_of,
    write_tokenizer,
    write_tokens,
)

import knnlm.lm.scoring
from knnlm.lm.anatomy import apply_f, apply_g
from knnlm.lm.architecture import STANDING_SITES
from knnlm.lm.model import create_model, load_model, save_model
from knnlm.lm.sampling import query_positions
from knnlm.lm.scoring import load_queries, score_queries
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, write_manifest
from knnlm.runtime.making import Target
from knnlm.text.tokens import load_tokens

QUERIES = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}


def positions_of(stream, *, tokens, tokens_per_document, seed=0):
    return query_positions(
        stream,
        tokens=tokens,
        tokens_per_document=tokens_per_document,
        seed=seed,
        end_of_document=END_OF_DOCUMENT,
    )


def spans_of(stream, positions):
    """Return document, start and stop of the targets, a document at a time."""
    targets = positions + 1
    documents = np.searchsorted(stream.documents, targets, side="right") - 1
    for document in np.unique(documents):
        found = targets[documents == document]
        assert (np.diff(found) == 1).all(), "the targets of a document are one span"
        yield document, found[0], found[-1] + 1


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(sum),
    tokens=st.none() | st.integers(10, 200),
    tokens_per_document=st.none() | st.integers(10, 40),
    seed=st.integers(0, 5),
)
def test_queries_are_spans_of_whole_words_within_the_limits(
    lengths, tokens, tokens_per_document, seed
):
    stream = stream_of(lengths, seed=seed)

    found = positions_of(stream, tokens=tokens, tokens_per_document=tokens_per_document, seed=seed)

    assert len(found) <= (tokens or stream.n_tokens)
    assert not np.isin(found + 1, stream.documents).any()
    for document, start, stop in spans_of(stream, found):
        first, end = stream.documents[document] + 1, stream.documents[document + 1]
        assert stop - start <= (tokens_per_document or stream.n_tokens)
        assert start == first or stream.words[start]
        assert stop == end or stream.words[stop]


def test_without_limits_every_token_but_the_first_of_a_document_is_a_target():
    stream = stream_of([5, 0, 3])

    found = positions_of(stream, tokens=None, tokens_per_document=None)

    assert list(found + 1) == [1, 2, 3, 4, 5, 8, 9, 10]


def test_a_document_limit_alone_takes_a_span_of_every_document():
    stream = stream_of([100] * 20)

    found = list(spans_of(stream, positions_of(stream, tokens=None, tokens_per_document=30)))

    assert len(found) == 20
    assert all(20 < stop - start <= 30 for _, start, stop in found)


def test_the_total_is_nearly_used_up_and_the_documents_are_many():
    stream = stream_of([100] * 20)

    found = positions_of(stream, tokens=200, tokens_per_document=30)

    assert 180 < len(found) <= 200
    assert len(list(spans_of(stream, found))) >= 7


def test_places_are_spread_over_the_document_and_change_with_the_seed():
    stream = stream_of([200] * 100)
    starts = []
    for seed in range(2):
        spans = spans_of(
            stream, positions_of(stream, tokens=None, tokens_per_document=20, seed=seed)
        )
        starts.append([start - stream.documents[d] for d, start, _ in spans])

    assert np.ptp(starts[0]) > 150
    assert abs(np.mean(starts) - 90) < 20
    assert starts[0] != starts[1]


def test_words_too_long_for_the_limits_are_refused():
    stream = stream_of([50])
    stream = replace(stream, words=np.zeros_like(stream.words))

    with pytest.raises(ValueError, match=r"not one whole word fits into queries\.tokens = 9"):
        positions_of(stream, tokens=9, tokens_per_document=None)


def test_a_stream_of_another_tokenizer_is_refused():
    stream = stream_of([5])

    with pytest.raises(ValueError, match="every document to begin with token 7, got 0"):
        query_positions(stream, tokens=5, tokens_per_document=5, seed=0, end_of_document=7)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = write_tokenizer(folder / "tokenizer")
    tokens = write_tokens(folder / "tokens", tokenizer, lengths={"test": [40, 3, 25, 70, 9]})
    return {"model": write_model(folder / "model", tokenizer, seed=0), "tokens": tokens}


def write_model(folder, tokenizer, *, seed):
    folder.mkdir()
    model = create_model(MODEL, vocabulary_size=VOCABULARY, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # far from uniform
    save_model(model, folder)
    made_from = {"tokenizer": identity(tokenizer, kind="tokenizer"), "tokens": "unknown"}
    write_manifest(folder, kind="model", settings={}, made_from=made_from, contents={})
    return folder


def score(inputs, output, *, queries=QUERIES, sites=STANDING_SITES):
    target = Target(output, "f", {"split": "test"})
    score_queries(target, queries=queries, sites=sites, **inputs)
    return load_queries(output)


@pytest.mark.parametrize("tokens", [60, None])
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_each_target_has_the_log_probability_that_the_model_gives_it(
    inputs, tmp_path, tokens, stride
):
    queries = {**QUERIES, "tokens": tokens, "tokens_per_document": None, "stride": stride}

    found = score(inputs, tmp_path / "queries", queries=queries)

    model, stream = load_model(inputs["model"]), load_tokens(inputs["tokens"], "test")
    n, context = stream.n_tokens, MODEL["context"]
    for position, target, log_prob in zip(
        found.positions, found.targets, found.lm_log_probs, strict=True
    ):
        # The first window keeps all; then a window for every stride, the last one moved back.
        steps = max(0, -(-(position + 1 - context) // stride))
        start = min(steps * stride, n - context)
        ids = torch.from_numpy(stream.tokens[start : position + 1].astype(np.int64))
        with torch.no_grad():
            expected = model(ids[None]).logits[0, -1].double().log_softmax(0)[int(target)]
        assert target == stream.tokens[position + 1]
        assert log_prob == pytest.approx(expected.item(), abs=1e-4)


def test_the_stored_states_lead_to_the_stored_log_probabilities(inputs, tmp_path):
    found = score(inputs, tmp_path / "queries")
    model = load_model(inputs["model"])
    targets = torch.from_numpy(found.targets.astype(np.int64))[:, None]

    residual = torch.from_numpy(found.hidden("ffn_input_before_layer_norm").copy())
    normed = torch.from_numpy(found.hidden("output_after_layer_norm").copy())
    key = torch.from_numpy(found.hidden("ffn_input_after_layer_norm").copy())
    with torch.no_grad():
        through = apply_f(model, apply_g(model, residual)).double().log_softmax(1)
        direct = model.lm_head(normed).double().log_softmax(1)

        torch.testing.assert_close(model.transformer.h[-1].ln_2(residual), key)
    for log_probs in (through, direct):
        np.testing.assert_allclose(
            log_probs.gather(1, targets)[:, 0], found.lm_log_probs, atol=1e-5
        )


def test_queries_carry_document_words_and_lines_of_their_targets(inputs, tmp_path):
    found = score(inputs, tmp_path / "queries")
    stream = load_tokens(inputs["tokens"], "test")

    for position, document, words, lines in zip(
        found.positions, found.documents, found.words, found.lines, strict=True
    ):
        assert stream.documents[document] < position + 1 < stream.documents[document + 1]
        assert (words, lines) == (stream.words[position + 1], stream.lines[position + 1])
    assert (np.diff(found.positions) > 0).all()
    assert found.n_queries == len(found.lm_log_probs) == len(found.targets)


def test_every_model_of_a_corpus_has_the_same_positions(inputs, tmp_path):
    other = write_model(tmp_path / "model", inputs["tokens"].parent / "tokenizer", seed=1)

    first = score(inputs, tmp_path / "first")
    second = score({**inputs, "model": other}, tmp_path / "second")

    np.testing.assert_array_equal(first.positions, second.positions)
    assert not np.array_equal(first.lm_log_probs, second.lm_log_probs)


def test_the_manifest_names_the_model_and_the_tokens(inputs, tmp_path):
    found = score(inputs, tmp_path / "queries", sites=["output_before_layer_norm"])

    manifest = read_manifest(tmp_path / "queries", kind="queries")

    assert manifest["made_from"] == {
        kind: identity(inputs[kind], kind=kind) for kind in ("model", "tokens")
    }
    assert manifest["contents"]["queries"] == found.n_queries
    assert manifest["settings"]["split"] == "test"
    assert sorted(name for name in manifest["files"] if "layer_norm" in name) == [
        "output_before_layer_norm.npy"
    ]


def test_only_windows_with_queries_are_read(inputs, tmp_path, monkeypatch):
    read = []
    plain = knnlm.lm.scoring.capture

    def watched(model, ids, sites):
        read.append(ids.numel())
        return plain(model, ids, sites)

    monkeypatch.setattr(knnlm.lm.scoring, "capture", watched)
    queries = {"tokens": 10, "tokens_per_document": 10, "stride": 8, "seed": 0}

    score(inputs, tmp_path / "queries", queries=queries)

    assert sum(read) <= 3 * MODEL["context"]


def test_scoring_that_was_stopped_goes_on_to_the_same_bytes(inputs, tmp_path, monkeypatch):
    expected = score(inputs, tmp_path / "whole").folder
    monkeypatch.setattr(knnlm.lm.scoring, "BATCH_TOKENS", 16)
    monkeypatch.setattr(knnlm.lm.scoring, "BLOCK_TOKENS", 48)
    plain, calls = knnlm.lm.scoring._score_batch, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(knnlm.lm.scoring, "_score_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        score(inputs, tmp_path / "cut")
    kept = sorted(path.name for path in (tmp_path / "partial").rglob("block-*.npz"))
    actual = score(inputs, tmp_path / "cut").folder

    undisturbed = score(inputs, tmp_path / "again").folder
    assert kept == ["block-00000.npz"]
    for path in expected.iterdir():
        assert (actual / path.name).read_bytes() == (undisturbed / path.name).read_bytes()


def test_states_of_a_site_that_was_not_stored_are_refused(inputs, tmp_path):
    found = score(inputs, tmp_path / "queries")

    with pytest.raises(ValueError, match=r"no hidden states of output_before.* one of ffn"):
        found.hidden("output_before_layer_norm")


def test_an_unknown_site_is_refused_before_any_work(inputs, tmp_path):
    with pytest.raises(ValueError, match="unknown site keys; expected one of"):
        score(inputs, tmp_path / "queries", sites=["keys"])


def test_a_model_of_another_tokenizer_is_refused(inputs, tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer", name="other")
    other = write_model(tmp_path / "model", tokenizer, seed=0)

    with pytest.raises(ArtifactError, match="was made from another tokenizer"):
        score({**inputs, "model": other}, tmp_path / "queries")


def test_a_stride_above_the_context_is_refused(inputs, tmp_path):
    with pytest.raises(ValueError, match="between 1 and the context of 8 tokens, got 9"):
        score(inputs, tmp_path / "queries", queries={**QUERIES, "stride": 9})
