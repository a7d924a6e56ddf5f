"""Training: reproducible to the byte, through kills, from a shared trunk and another's weights."""

import json
import os
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lm_artifacts import MODEL, write_tokenizer, write_tokens
from torch.nn import functional

from knnlm.lm.model import load_model
from knnlm.lm.pretraining import TRUNK, train_language_model
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest
from knnlm.runtime.making import Target
from knnlm.text.tokens import load_tokens

SCRIPTS = Path(__file__).parents[2] / "scripts"
FILES = ("model.safetensors", "training.parquet", "config.json", "manifest.json", TRUNK)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = write_tokenizer(folder / "tokenizer")
    (tokenizer / ".snakemake_timestamp").touch()  # as Snakemake leaves in its outputs
    return {"tokenizer": tokenizer, "tokens": write_tokens(folder / "tokens", tokenizer)}


def block(**training):
    model = deepcopy(MODEL)
    model["training"] |= training
    return model


def build(inputs, output, *, model=MODEL, seed=0, **more):
    target = Target(output, "f", {"seed": str(seed)})
    train_language_model(target, model=model, **inputs, **more)
    return output


@pytest.fixture(scope="module")
def base(inputs, tmp_path_factory):
    return build(inputs, tmp_path_factory.mktemp("base") / "model")


def assert_same_files(one, other):
    assert {name: (one / name).is_file() for name in FILES} == {
        name: (other / name).is_file() for name in FILES
    }
    for name in (name for name in FILES if (one / name).is_file()):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_artifact_says_what_it_was_made_from_and_loads(inputs, base):
    manifest = read_manifest(base, kind="model")

    assert manifest["made_from"] == {
        "tokens": identity(inputs["tokens"], kind="tokens"),
        "tokenizer": identity(inputs["tokenizer"], kind="tokenizer"),
    }
    assert manifest["settings"] == {"model": MODEL, "seed": 0}
    assert manifest["contents"] == {"updates": 50, "tokens": 1_600}
    assert set(manifest["files"]) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "training.parquet",
        TRUNK,
    }
    assert load_model(base).config.eos_token_id == 0


def test_the_log_has_losses_rates_and_validation_at_their_steps(base):
    log = pd.read_parquet(base / "training.parquet")

    assert list(log) == ["step", "tokens", "loss", "lr", "validation_loss"]
    assert list(log["step"]) == [10, 12, 20, 24, 30, 36, 40, 48, 50]
    assert list(log["tokens"]) == [32 * step for step in log["step"]]
    validated = log.dropna(subset=["validation_loss"])
    assert list(validated["step"]) == [12, 24, 36, 48, 50]
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]


def nll_of_first_tokens(inputs, folder):
    """Return the mean nll of the first 60 tokens of validation, one by one."""
    tokens = torch.from_numpy(
        load_tokens(inputs["tokens"], "validation").tokens[:60].astype(np.int64)
    )
    model, nlls = load_model(folder), []
    for at in range(59):  # targets 1..59 in windows of 8, the last one moved back to be whole
        start = min(at // 8 * 8, 59 - 8)
        with torch.no_grad():
            logits = model(tokens[None, start : at + 1]).logits[0, -1]
        nlls.append(functional.cross_entropy(logits.double(), tokens[at + 1]).item())
    return np.mean(nlls)


def test_the_validation_loss_is_the_mean_nll_of_the_first_tokens(inputs, base):
    log = pd.read_parquet(base / "training.parquet")

    expected = nll_of_first_tokens(inputs, base)
    assert log["validation_loss"].iloc[-1] == pytest.approx(expected, rel=1e-5)


def test_training_twice_gives_the_same_bytes_and_another_seed_others(inputs, base, tmp_path):
    assert_same_files(build(inputs, tmp_path / "again"), base)
    other = build(inputs, tmp_path / "other", seed=1)

    assert (other / FILES[0]).read_bytes() != (base / FILES[0]).read_bytes()


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "linear", "warmup_steps": 5, "decay_share": 0.4},
        {"name": "cosine", "warmup_steps": 5, "decay_share": 0.4},
        {
            "name": "cosine_restarts",
            "warmup_steps": 5,
            "warmup_lr": 1e-7,
            "min_lr": 1e-4,
            "period": 20,
            "period_factor": 2,
            "lr_shrink": 0.75,
        },
    ],
    ids=lambda schedule: schedule["name"],
)
def test_growing_from_the_trunk_is_training_from_scratch(inputs, tmp_path, schedule):
    short, longer = block(schedule=schedule), block(schedule=schedule, tokens=3_333)
    longer["extends"] = "short"
    trunk = build(inputs, tmp_path / "short", model=short)
    scratch = build(inputs, tmp_path / "scratch", model=longer)

    grown = build(inputs, tmp_path / "grown", model=longer, trunk=trunk)

    assert_same_files(grown, scratch)


def test_growing_from_the_trunk_trains_only_what_is_new(inputs, base, tmp_path, caplog):
    with caplog.at_level("INFO", logger="macondo"):
        build(inputs, tmp_path / "grown", model=block(tokens=3_200), trunk=base)

    assert "training: 960 of 3,200 tokens were done before" in caplog.text


def without_dropout(*, lr, **training):
    optimizer = {"name": "adamw", "lr": lr, "betas": [0.9, 0.98], "weight_decay": 0.0}
    dropout = {"residual": 0.0, "attention": 0.0, "activation": 0.0}
    return {**block(optimizer=optimizer, **training), "dropout": dropout, "starts_from": "base"}


def test_a_training_starts_from_the_weights_of_another_bit_for_bit(inputs, base, tmp_path):
    still = without_dropout(lr=1e-30)  # too low a rate to move a weight

    made = build(inputs, tmp_path / "model", model=still, start=base)

    assert (made / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    config = json.loads((made / "config.json").read_text())
    assert (
        config["resid_pdrop"] == 0 < json.loads((base / "config.json").read_text())["resid_pdrop"]
    )
    manifest = read_manifest(made, kind="model")
    assert manifest["made_from"]["start"] == identity(base, kind="model")
    assert manifest["contents"] == {"updates": 50, "tokens": 1_600}


def test_it_has_a_schedule_of_its_own_and_lowers_the_loss_further(inputs, base, tmp_path):
    made = build(inputs, tmp_path / "model", model=without_dropout(lr=0.01), start=base)

    log, first = (pd.read_parquet(folder / "training.parquet") for folder in (made, base))
    assert list(log["lr"]) == list(first["lr"])
    assert log["loss"].iloc[-1] < first["loss"].iloc[-1]
    assert not (made / TRUNK).exists(), "a trunk would hold weights that no other model begins with"


def test_it_may_read_another_corpus_of_the_same_tokenizer(inputs, base, tmp_path):
    other = write_tokens(tmp_path / "tokens", inputs["tokenizer"], seed=1)

    made = build(
        {**inputs, "tokens": other}, tmp_path / "m", model=without_dropout(lr=0.01), start=base
    )

    assert read_manifest(made, kind="model")["made_from"]["tokens"] == identity(
        other, kind="tokens"
    )


@pytest.mark.parametrize(("changed", "seed"), [({"heads": 1}, 0), ({"context": 4}, 0), ({}, 1)])
def test_weights_of_another_shape_or_seed_are_refused(inputs, base, tmp_path, changed, seed):
    model = without_dropout(lr=0.01) | changed

    with pytest.raises(ValueError, match=r"to be a model of the shape .* got .* and seed 0"):
        build(inputs, tmp_path / "model", model=model, start=base, seed=seed)


def test_weights_of_another_tokenizer_are_refused(base, tmp_path):
    other = write_tokenizer(tmp_path / "tokenizer", name="other")
    inputs = {"tokenizer": other, "tokens": write_tokens(tmp_path / "tokens", other)}

    with pytest.raises(ArtifactError, match="was made from another tokenizer"):
        build(inputs, tmp_path / "model", model=without_dropout(lr=0.01), start=base)


KILLABLE = """
import json, sys
from pathlib import Path
from knnlm.lm.pretraining import train_language_model
from knnlm.runtime.logs import log_to
from knnlm.runtime.making import Target

log_to(sys.argv[2])
arguments = json.loads(sys.argv[1])
model = arguments.pop("model")
paths = {name: Path(path) for name, path in arguments.items()}
target = Target(paths.pop("output"), "f", {"seed": "0"})
train_language_model(target, model=model, **paths)
"""


def start_training(inputs, output, model, log):
    threads = str(torch.get_num_threads())
    paths = {name: str(path) for name, path in {**inputs, "output": output}.items()}
    return subprocess.Popen(
        [sys.executable, "-c", KILLABLE, json.dumps({"model": model, **paths}), str(log)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": threads},
    )


@pytest.mark.parametrize(
    "case", [{}, {"early_stopping": {"patience": 20}}, {"starts_from": "base"}], ids=str
)
def test_a_training_that_was_killed_goes_on_to_the_same_bytes(inputs, base, tmp_path, case):
    if "starts_from" in case:
        model = without_dropout(lr=0.01, tokens=6_400, save_every=20)
        inputs = {**inputs, "start": base}
    else:
        model = block(tokens=6_400, save_every=20, **case)
    expected = build(inputs, tmp_path / "whole", model=model)
    output = tmp_path / "results" / "run" / "models" / "cut"
    units = tmp_path / "results" / "run" / "partial" / "models" / "cut"

    first = start_training(inputs, output, model, tmp_path / "first.log")
    while not list(units.glob("*/state.safetensors")):
        assert first.poll() is None, (tmp_path / "first.log").read_text()
        time.sleep(0.001)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not output.exists()
    second = start_training(inputs, output, model, tmp_path / "second.log")

    assert second.wait() == 0, (tmp_path / "second.log").read_text()
    assert "of 6,400 tokens were done before" in (tmp_path / "second.log").read_text()
    assert_same_files(output, expected)
    assert not (tmp_path / "results" / "run" / "partial" / "models" / "cut").exists()


OVERFITTING = block(  # few windows and a high rate: the validation loss soon rises
    tokens=6_400,
    validate_every=6,
    early_stopping={"patience": 2},
    optimizer={"name": "adamw", "lr": 0.1, "betas": [0.9, 0.98], "weight_decay": 0.0},
)


def test_the_best_state_on_validation_is_kept_and_its_tokens_are_told(inputs, tmp_path):
    kept = build(inputs, tmp_path / "early", model=OVERFITTING)

    log = pd.read_parquet(kept / "training.parquet").dropna(subset=["validation_loss"])
    best = log.loc[log["validation_loss"].idxmin()]
    assert best["step"] + 12 == log["step"].max() < 200
    contents = read_manifest(kept, kind="model")["contents"]
    assert contents["stopped_after"] == log["step"].max()
    assert (contents["updates"], contents["tokens"]) == (best["step"], best["step"] * 32)
    assert best["validation_loss"] == pytest.approx(nll_of_first_tokens(inputs, kept), rel=1e-5)
    assert not list(kept.glob("best*"))


def test_a_kill_between_the_last_files_costs_no_training(inputs, base, tmp_path, monkeypatch):
    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("knnlm.runtime.making.write_manifest", die)
        with pytest.raises(KeyboardInterrupt):
            build(inputs, tmp_path / "model")
    monkeypatch.setattr("knnlm.lm.pretraining.train", die)

    assert_same_files(build(inputs, tmp_path / "model"), base)


@pytest.mark.parametrize(
    "model",
    [block(tokens=1_600), block(tokens=3_200, batch_size=4), {**block(tokens=3_200), "layers": 1}],
)
def test_a_model_that_differs_cannot_grow_from_another(inputs, base, tmp_path, model):
    with pytest.raises(ValueError, match=r"shorter training of the same model, seed and schedule"):
        build(inputs, tmp_path / "model", model=model, trunk=base)


def test_a_trunk_of_another_seed_is_refused(inputs, base, tmp_path):
    with pytest.raises(ValueError, match=r"shorter training of the same model, seed and schedule"):
        build(inputs, tmp_path / "model", model=block(tokens=3_200), trunk=base, seed=1)


def test_a_trunk_trained_on_other_tokens_is_refused(inputs, base, tmp_path):
    other = write_tokens(tmp_path / "tokens", inputs["tokenizer"], seed=1)

    with pytest.raises(ArtifactError, match="was made from another tokens"):
        build(
            {**inputs, "tokens": other}, tmp_path / "model", model=block(tokens=3_200), trunk=base
        )


def test_tokens_of_another_tokenizer_are_refused(inputs, tmp_path):
    other = write_tokenizer(tmp_path / "tokenizer", name="other")

    with pytest.raises(ArtifactError, match="was made from another tokenizer"):
        build({**inputs, "tokenizer": other}, tmp_path / "model")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_shorter_than_one_window_is_refused(inputs, tmp_path, split):
    short = write_tokens(tmp_path / "tokens", inputs["tokenizer"], lengths={split: [3, 3]})

    with pytest.raises(
        ValueError, match=rf"expected the {split} split to have at least 9 tokens .* got 8"
    ):
        build({**inputs, "tokens": short}, tmp_path / "model")


def test_a_budget_below_one_update_is_refused(inputs, tmp_path):
    with pytest.raises(ValueError, match="tokens of 31 do not pay for one update of 32 tokens"):
        build(inputs, tmp_path / "model", model=block(tokens=31))
