"""Continued training changes what it says, begins at the LM itself and ends in the same bytes."""

import math
from pathlib import Path

import lm_artifacts
import numpy as np
import pandas as pd
import pytest
import torch

import knnlm.experiments.mlp_augmentation.continuation as module
from knnlm.experiments.mlp_augmentation.continuation import LastLayers, continue_training, untied
from knnlm.lm.anatomy import capture
from knnlm.lm.architecture import FFN_INPUT_BEFORE
from knnlm.lm.model import create_model, load_model, save_model
from knnlm.lm.pretraining import next_token_loss
from knnlm.lm.windows import ShuffledWindows
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, write_manifest
from knnlm.runtime.making import Target
from knnlm.text.tokens import load_tokens

SETTINGS = {
    "batch_size": 16,
    "accumulation": 1,
    "optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
    "clip_norm": None,
    "precision": "fp32",
    "save_every": 4,
}


@pytest.fixture
def folders(tmp_path):
    """Return tokens and a finished model, as artifacts."""
    tokenizer = lm_artifacts.write_tokenizer(tmp_path / "tokenizer")
    tokens = lm_artifacts.write_tokens(tmp_path / "tokens", tokenizer)
    model = tmp_path / "model"
    save_model(network(), model)
    made_from = {
        "tokens": identity(tokens, kind="tokens"),
        "tokenizer": identity(tokenizer, kind="tokenizer"),
    }
    write_manifest(model, kind="model", settings={}, made_from=made_from, contents={})
    return {"model": model, "tokens": tokens}


def network():
    return create_model(lm_artifacts.MODEL, vocabulary_size=lm_artifacts.VOCABULARY, seed=0)


def run(folders, output, continuation="last_layers", updates=10, *, seed=0, **changes):
    target = Target(output, "f" * 64, {"control": continuation, "seed": str(seed)})
    continue_training(target, **folders, updates=updates, settings=SETTINGS | changes)
    return load_model(output)


def test_the_last_layers_begin_as_the_lm_itself():
    lm = network()
    tokens = torch.arange(8)[None]

    separate = untied(lm)
    last = LastLayers(separate).eval()
    logits = last(capture(separate, tokens, [FFN_INPUT_BEFORE])[FFN_INPUT_BEFORE])

    torch.testing.assert_close(logits, lm(input_ids=tokens).logits)


def test_only_the_last_layers_change_and_the_head_leaves_the_embedding(folders, tmp_path):
    before, after = network(), run(folders, tmp_path / "out")

    old, new = before.state_dict(), after.state_dict()
    changed = {name.rsplit(".", 1)[0] for name in new if not torch.equal(new[name], old[name])}
    assert changed == {
        "transformer.h.1.ln_2",
        "transformer.h.1.mlp.c_fc",
        "transformer.h.1.mlp.c_proj",
        "transformer.ln_f",
        "lm_head",
    }


def test_the_whole_model_changes_and_stays_tied(folders, tmp_path):
    before, after = network(), run(folders, tmp_path / "out", "whole_model")

    old = before.state_dict()
    assert not any(torch.equal(new, old[name]) for name, new in after.state_dict().items())
    assert after.lm_head.weight is after.transformer.wte.weight


@pytest.mark.parametrize("continuation", ["last_layers", "whole_model"])
def test_training_on_lowers_the_loss(folders, tmp_path, continuation):
    run(folders, tmp_path / "out", continuation, updates=60)

    losses = pd.read_parquet(tmp_path / "out" / "training.parquet")["loss"]
    assert losses.tail(10).mean() < losses.head(5).mean() - 0.2
    assert losses[0] == pytest.approx(math.log(lm_artifacts.VOCABULARY), abs=0.3)


def test_the_frozen_layers_read_without_dropout(folders, tmp_path, monkeypatch):
    seen = []
    real = module.capture

    def watched(model, *arguments):
        frozen = list(model.transformer.h[0].modules())
        seen.append(any(part.training for part in frozen))
        return real(model, *arguments)

    monkeypatch.setattr(module, "capture", watched)
    run(folders, tmp_path / "out", updates=2)

    assert seen == [False, False]


@pytest.mark.parametrize("continuation", ["last_layers", "whole_model"])
def test_a_stopped_training_goes_on_to_the_same_bytes(folders, tmp_path, monkeypatch, continuation):
    run(folders, tmp_path / "whole", continuation)
    real, read = module.read, []

    def stop(*arguments):
        read.append(arguments)
        if len(read) > 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folders, tmp_path / "broken", continuation)
    monkeypatch.setattr(
        module, "read", lambda *arguments: read.append(arguments) or real(*arguments)
    )
    read.clear()
    run(folders, tmp_path / "broken", continuation)

    assert len(read) == 6  # after the state of update 4
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")


def bytes_of(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_another_seed_is_another_order_and_other_dropout(folders, tmp_path, monkeypatch):
    read, real = [], module.read
    monkeypatch.setattr(module, "read", lambda *a: read.append(np.array(a[1])) or real(*a))
    for seed in (0, 1):
        run(folders, tmp_path / f"order {seed}", "whole_model", updates=3, seed=seed)
    assert not np.array_equal(read[:3], read[3:])

    def one_order(n_tokens, *, context, seed):
        return ShuffledWindows(n_tokens, context=context, seed=0)

    monkeypatch.setattr(module, "ShuffledWindows", one_order)
    models = [
        run(folders, tmp_path / f"dropout {seed}", "whole_model", updates=3, seed=seed)
        for seed in (0, 1)
    ]
    weights = [model.state_dict()["lm_head.weight"] for model in models]
    assert not torch.equal(*weights)


def test_the_artifact_is_a_model_of_the_same_tokens(folders, tmp_path):
    run(folders, tmp_path / "out")

    manifest = read_manifest(tmp_path / "out", kind="model")
    before = read_manifest(folders["model"], kind="model")["made_from"]
    assert manifest["made_from"] == before | {"continued": identity(folders["model"], kind="model")}
    assert manifest["contents"] == {"updates": 10, "tokens": 160}


def test_both_continuations_read_the_same_text_which_is_train(folders, tmp_path, monkeypatch):
    seen, real = [], module.read
    train = load_tokens(folders["tokens"], "train").tokens

    def watched(tokens, starts, length):
        np.testing.assert_array_equal(tokens, train)
        seen.append(np.array(starts))
        return real(tokens, starts, length)

    monkeypatch.setattr(module, "read", watched)

    run(folders, tmp_path / "a", "last_layers", updates=5)
    run(folders, tmp_path / "b", "whole_model", updates=5)

    np.testing.assert_array_equal(seen[:5], seen[5:])


def test_a_batch_of_broken_windows_is_an_error(folders, tmp_path):
    with pytest.raises(ValueError, match="got 20 tokens and a context of 8"):
        run(folders, tmp_path / "out", batch_size=20)


def test_an_unknown_continuation_is_an_error(folders, tmp_path):
    with pytest.raises(ValueError, match="last_layers, whole_model, got head"):
        run(folders, tmp_path / "out", "head")


def test_a_model_of_another_tokenizer_is_an_error(folders, tmp_path):
    tokenizer = lm_artifacts.write_tokenizer(tmp_path / "other", name="other")
    foreign = {**folders, "tokens": lm_artifacts.write_tokens(tmp_path / "foreign", tokenizer)}

    with pytest.raises(ArtifactError, match="made from another tokenizer"):
        run(foreign, tmp_path / "out")


def test_the_loss_of_the_last_layers_is_that_of_the_model():
    lm = untied(network())
    batch = torch.arange(18).reshape(2, 9)

    found = module._last_layers_loss(lm)(LastLayers(lm).eval(), batch)

    torch.testing.assert_close(found, next_token_loss(lm, batch))
