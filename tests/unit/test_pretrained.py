"""A pretrained model takes the place of a trained one, and what cannot is refused by its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import knnlm.lm.pretrained
from knnlm.lm.anatomy import capture, context
from knnlm.lm.architecture import FFN_INPUT_AFTER, STANDING_SITES
from knnlm.lm.model import create_model, load_model, save_model
from knnlm.lm.pretrained import fetch_language_model
from knnlm.lm.pretrained_folder import Shape, check_pretrained_folder, read_shape
from knnlm.lm.scoring import load_queries, score_queries
from knnlm.lm.starting_point import starting_point
from knnlm.retrieval.encoder import Encoder
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, verify_checksums
from knnlm.runtime.making import Target
from knnlm.text.corpus import build_corpus
from knnlm.text.documents import SPLITS
from knnlm.text.encoding import tokenize_corpus
from knnlm.text.tokenizer import (
    END_OF_DOCUMENT,
    build_tokenizer,
    save_tokenizer,
    train_tokenizer,
    vocabulary_size,
)
from knnlm.text.tokens import load_tokens

SENTENCE = "Ada Bell is the parent of Zoe , and Kim of the mill knows them both well .\n"
FAMILIES = ("gpt2", "llama")
WINDOW = 16
QUERIES = {"tokens": 40, "tokens_per_document": 20, "stride": 8, "seed": 0}


def pretrained(folder, family, *, vocabulary=None, shards=False):
    """Write a tiny random model with its tokenizer, as from the hub, and return its folder."""
    tokenizer = train_tokenizer([SENTENCE], vocabulary_size=280)
    rows = vocabulary or 8 + vocabulary_size(tokenizer)  # embeddings are often padded
    torch.manual_seed(0)
    if family == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=rows, **sizes))
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        config = LlamaConfig(vocab_size=rows, max_position_embeddings=64, **sizes, **heads)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder, **({"max_shard_size": "8KB"} if shards else {}))
    save_tokenizer(folder, tokenizer, end_of_document=END_OF_DOCUMENT)
    return folder


def tokenizer_of(folder, output):
    block = {"source": "pretrained", "model": str(folder)}
    build_tokenizer(Target(output, "f"), text=None, tokenizer=block, cache=output.parent)
    return output


def fetch(folder, output, *, tokenizer=None, **changes):
    tokenizer = tokenizer or tokenizer_of(folder, output.parent / "tokenizer")
    block = {"source": "pretrained", "model": str(folder), "context": WINDOW, **changes}
    target = Target(output, "f", {"model": "tiny", "seed": "0"})
    fetch_language_model(target, tokenizer=tokenizer, model=block)
    return output


def tokens_of(folder, tokenizer):
    """Write tokens of a local corpus of three splits."""
    (folder / "raw").mkdir()
    for split in SPLITS:
        (folder / "raw" / f"{split}.txt").write_text(f" = Ada = \n {SENTENCE * 12}", "utf-8")
    corpus = {"source": "local", "path": str(folder / "raw"), "documents": "headings"}
    text = folder / "text"
    build_corpus(Target(text, "f", {"corpus": "mine"}), corpus=corpus, cache=folder)
    few = {split: {"a text": 1} for split in SPLITS}
    tokens = Target(folder / "tokens", "f")
    tokenize_corpus(tokens, text=text, tokenizer=tokenizer, needed=few)
    return tokens.output


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fetched_model_has_the_weights_of_its_folder(tmp_path, family, shards):
    folder = pretrained(tmp_path / "theirs", family, shards=shards)
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(12)[None]

    artifact = fetch(folder, tmp_path / "model")

    verify_checksums(artifact, kind="model")
    manifest = read_manifest(artifact, kind="model")
    assert manifest["names"] == {"model": "tiny", "seed": "0"}
    tokenizer = tmp_path / "tokenizer"
    assert manifest["made_from"] == {"tokenizer": identity(tokenizer, kind="tokenizer")}
    assert {"tokenizer.json", "config.json"} < set(manifest["files"])
    assert (artifact / "model.safetensors.index.json").is_file() == shards
    torch.testing.assert_close(load_model(artifact)(ids).logits, expected(ids).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_window_is_that_of_the_block_and_the_positions_stay(tmp_path, family):
    model = load_model(fetch(pretrained(tmp_path / "theirs", family), tmp_path / "model"))

    assert context(model) == WINDOW
    assert model.config.max_position_embeddings == 64


def test_a_model_of_our_own_in_a_folder_keeps_its_window(tmp_path):
    folder, shape = pretrained(tmp_path / "theirs", "gpt2"), {"layers": 1, "width": 8, "heads": 1}
    block = {"ffn_width": 8, "context": 64, "activation": "relu", "tied_embeddings": True}
    dropout = dict.fromkeys(("residual", "attention", "activation"), 0.0)
    ours = {**shape, **block, "dropout": dropout, "without_mlp": []}
    save_model(create_model(ours, vocabulary_size=300, seed=0), folder)

    assert context(load_model(fetch(folder, tmp_path / "model"))) == WINDOW


def test_weights_are_not_copied_on_one_file_system(tmp_path):
    folder = pretrained(tmp_path / "theirs", "gpt2")

    artifact = fetch(folder, tmp_path / "model")

    assert (artifact / "model.safetensors").samefile(folder / "model.safetensors")


def test_weights_are_copied_where_no_link_is_possible(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("cross-device link")

    folder = pretrained(tmp_path / "theirs", "gpt2")
    monkeypatch.setattr(knnlm.lm.pretrained.os, "link", refuse)

    artifact = fetch(folder, tmp_path / "model")

    weights = [path / "model.safetensors" for path in (artifact, folder)]
    assert not weights[0].samefile(weights[1])
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_scores_queries_as_it_predicts(tmp_path, family):
    artifact = fetch(pretrained(tmp_path / "theirs", family), tmp_path / "model")
    tokens = tokens_of(tmp_path, tmp_path / "tokenizer")

    target = Target(tmp_path / "queries", "f", {"split": "test"})
    score_queries(
        target, model=artifact, tokens=tokens, queries=QUERIES, sites=list(STANDING_SITES)
    )

    found, model = load_queries(target.output), load_model(artifact)
    stream = load_tokens(tokens, "test")
    position = found.positions[0]
    steps = max(0, -(-(position + 1 - WINDOW) // QUERIES["stride"]))
    start = min(steps * QUERIES["stride"], stream.n_tokens - WINDOW)
    ids = torch.from_numpy(stream.tokens[start : position + 1].astype(np.int64))
    with torch.no_grad():
        log_p = model(ids[None]).logits[0, -1].double().log_softmax(0)
    assert found.lm_log_probs[0] == pytest.approx(log_p[found.targets[0]].item(), abs=1e-4)
    assert found.hidden(FFN_INPUT_AFTER).shape == (found.n_queries, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_keys_of_a_datastore_are_its_states_in_windows_of_the_block(tmp_path, family):
    model = load_model(fetch(pretrained(tmp_path / "theirs", family), tmp_path / "model"))
    stream = load_tokens(tokens_of(tmp_path, tmp_path / "tokenizer"), "train").tokens

    encoder = Encoder(model, stream, site=FFN_INPUT_AFTER, stride=WINDOW, dtype="float32")

    ids = torch.from_numpy(stream[:WINDOW].astype(np.int64))
    states = capture(model, ids[None], [FFN_INPUT_AFTER])[FFN_INPUT_AFTER][0]
    np.testing.assert_allclose(encoder.keys(0, WINDOW), states, rtol=1e-4, atol=1e-6)


def test_tokens_of_another_tokenizer_are_refused(tmp_path):
    artifact = fetch(pretrained(tmp_path / "theirs", "gpt2"), tmp_path / "model")
    other = train_tokenizer([SENTENCE], vocabulary_size=270)
    save_tokenizer(tmp_path / "folder", other, end_of_document=END_OF_DOCUMENT)
    tokens = tokens_of(tmp_path, tokenizer_of(tmp_path / "folder", tmp_path / "other"))
    target = Target(tmp_path / "queries", "f", {"split": "test"})

    with pytest.raises(ArtifactError, match="model was made from another tokenizer"):
        score_queries(target, model=artifact, tokens=tokens, queries=QUERIES, sites=STANDING_SITES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fine_tuning_starts_from_it_with_names_of_its_own(tmp_path, family):
    artifact = fetch(pretrained(tmp_path / "theirs", family), tmp_path / "model")
    names = [f"Name{letter}" for letter in "ABCDEFGHIJ"]

    start = starting_point(
        vocabulary=tmp_path / "tokenizer",
        names=names,
        model=artifact,
        fine_tuning={"init": "tiny", "lora": None},
        shape=None,
        seed=0,
        cache=tmp_path,
    )

    weight = load_model(artifact).get_input_embeddings().weight
    assert torch.equal(start.model.get_input_embeddings().weight[: len(weight)], weight)
    assert start.names_added == 10
    assert start.vocabulary <= len(start.model.get_input_embeddings().weight)


def test_the_shape_is_read_in_the_words_of_each_family(tmp_path):
    shapes = [
        check_pretrained_folder(pretrained(tmp_path / family, family, vocabulary=300))
        for family in FAMILIES
    ]

    assert shapes == [
        Shape("gpt2", 2, 16, 2, 2, 64, 300, 64, tied_embeddings=True),
        Shape("llama", 2, 16, 4, 2, 24, 300, 64, tied_embeddings=False),
    ]


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    without_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def one_shard_short(folder: Path) -> None:
    without_weights(folder)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def unknown_family(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "opt"}')


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_embd": None}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, r"expected .* to hold model\.safetensors, .* got no weights \(config"),
        (
            pickled,
            r"got pickled weights only \(pytorch_model\.bin\).* with save_pretrained",
        ),
        (one_shard_short, r"got no model-00001-of-00002\.safetensors; fetch the model again"),
        (unknown_family, "expected a model of type gpt2, llama, mistral, got opt in .*config.json"),
        (no_config, r"whose config\.json cannot be read .* correct the folder"),
        (no_width, "to give n_layer, n_embd, .* whole numbers above 0, got 2, None"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_that_is_no_such_model_is_refused_by_its_files(tmp_path, spoil, message):
    folder = pretrained(tmp_path / "theirs", "gpt2")
    spoil(folder)

    with pytest.raises(ValueError, match=rf"models\.tiny\.model: .*{message}"):
        check_pretrained_folder(folder, key="models.tiny.model")


def test_a_window_longer_than_the_positions_is_refused(tmp_path):
    folder = pretrained(tmp_path / "theirs", "llama")

    with pytest.raises(ValueError, match=r"models\.x\.context: expected at most the 64 .* got 65"):
        check_pretrained_folder(folder, key="models.x.model", context=65)


def test_a_tokenizer_with_more_entries_than_the_embedding_is_refused(tmp_path):
    folder = pretrained(tmp_path / "theirs", "gpt2", vocabulary=270)
    tokenizer = tokenizer_of(folder, tmp_path / "tokenizer")
    message = r"tokenizer: expected at most the 270 entries .* got 280; name the tokenizer"

    with pytest.raises(ValueError, match=message):
        check_pretrained_folder(folder, tokenizer=folder)
    with pytest.raises(ValueError, match=rf"models\.tiny\.{message}"):
        fetch(folder, tmp_path / "model", tokenizer=tokenizer)


def test_the_check_needs_the_standard_library_alone():
    source = Path(knnlm.lm.pretrained.__file__).parent
    imported = "".join(
        (source / name).read_text() for name in ("architecture.py", "pretrained_folder.py")
    )

    assert not {"torch", "numpy", "transformers"} & set(imported.split())
    assert callable(read_shape)
