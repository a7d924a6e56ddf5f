"""A replacement is trained on shards, survives a kill, and is loaded as it was trained."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from retrieval_artifacts import make_datastore, write_inputs, write_model

import knnlm.retrieval.datastore_parts
from knnlm.experiments.mlp_augmentation.stored_replacement import (
    WEIGHTS,
    load_replacement,
    train_replacement,
)
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.mlp_replacement import MlpReplacement, train_on_pairs
from knnlm.runtime.artifacts import ArtifactError
from knnlm.runtime.making import Target

SCRIPTS = Path(__file__).parents[4] / "scripts"
SETTINGS = {
    "hidden_multiple": 2,
    "epochs": 2,
    "batch_size": 32,
    "accumulation": 1,
    "optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
    "clip_norm": None,
    "precision": "fp32",
    "save_every": 3,
    "buffer_mib": 1,
}
SLOWED = """
    import time
    from pathlib import Path
    import knnlm.retrieval.mlp_replacement as module
    from knnlm.experiments.mlp_augmentation.stored_replacement import train_replacement
    from knnlm.runtime.making import Target

    real = module._loss
    module._loss = lambda *arguments: (time.sleep({seconds}), real(*arguments))[1]
    train_replacement(
        Target(Path({output!r}), "f", {names!r}),
        datastore=Path({datastore!r}),
        model=Path({model!r}),
        settings={settings!r},
    )
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a model and a datastore of its keys, in several shards."""
    root = tmp_path_factory.mktemp("stored")
    lm = write_inputs(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knnlm.retrieval.datastore_parts, "rows_of_shard", lambda *_, **__: 64)
        make_datastore(
            root / "datastore",
            site="ffn_input_after_layer_norm",
            stride=4,
            dtype="float16",
            shard_mib=1,
            **lm,
        )
    return {"model": lm["model"], "datastore": root / "datastore"}


def make(folders, output, head="random"):
    target = Target(output, "f", {"datastore": "base", "seed": "0", "head": head})
    train_replacement(target, settings=SETTINGS, **folders)
    return output


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("head", ["lm_head_frozen", "random"])
def test_what_is_loaded_is_what_was_trained_on_all_shards(folders, tmp_path, head):
    store, lm = open_datastore(folders["datastore"]), load_model(folders["model"])
    keys = np.concatenate([shard.datastore_keys for shard in store])
    values = np.concatenate([shard.datastore_values for shard in store])
    expected = MlpReplacement(
        head_weight(lm), head_setting=head, hidden=2 * store.dim, activation="gelu_new", seed=0
    )
    whole = {"settings": SETTINGS, "seed": 0, "partial": tmp_path / "partial"}
    rows = train_on_pairs(expected, keys, values, **whole)

    found = load_replacement(make(folders, tmp_path / head, head), model=folders["model"])

    # Another order of the same pairs, so close but not equal.
    probe = torch.from_numpy(np.array(keys[:50]))
    difference = (found(probe).softmax(1) - expected(probe).softmax(1)).abs().mean()
    assert difference < 0.02
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_a_killed_training_goes_on_to_the_same_bytes(folders, tmp_path):
    whole = make(folders, tmp_path / "whole")
    output = tmp_path / "killed"
    paths = {name: str(folder) for name, folder in folders.items()}
    names = {"datastore": "base", "seed": "0", "head": "random"}
    made = {"output": str(output), "names": names, "settings": SETTINGS}
    code = SLOWED.format(seconds=0.05, **made, **paths)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"},
    )
    units = tmp_path / "partial" / "killed"
    while not list(units.glob("*/state.safetensors")):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()

    make(folders, output)

    assert bytes_of(output) == bytes_of(whole)


def test_truncated_weights_are_an_error(folders, tmp_path):
    output = make(folders, tmp_path / "out")
    weights = output / WEIGHTS
    weights.write_bytes(b"\0" * weights.stat().st_size)

    with pytest.raises(ArtifactError, match=f"{WEIGHTS} cannot be read"):
        load_replacement(output, model=folders["model"])


def test_a_datastore_of_another_model_is_an_error(folders, tmp_path):
    tokenizer = folders["model"].parent / "tokenizer"
    other = write_model(tmp_path / "other", tokenizer, seed=1)

    with pytest.raises(ArtifactError, match="made from another model"):
        make({**folders, "model": other}, tmp_path / "out")
