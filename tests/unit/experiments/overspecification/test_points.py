"""Which point of a training is early, what an MLP learns, and of which point it answers."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from knnlm.experiments.overspecification import mlp
from knnlm.experiments.overspecification.finetuning import _Watch, means, save_tensors
from knnlm.experiments.overspecification.names import FINE_TUNING, KEPT
from knnlm.runtime.artifacts import write_manifest
from knnlm.runtime.making import Target
from knnlm.text.macondo.town import SPLITS


def test_early_is_a_share_of_the_updates(tmp_path):
    settings = {"k": 1, "early": 0.5}

    watch = _Watch(tmp_path, None, {"train": [0]}, settings=settings, points=[10, 20, 30, 40])

    assert watch.early == 20


def test_the_log_has_the_knn_lm_at_the_fixed_temperature_and_weight():
    lm = {f"lm_{split}": np.log([0.5, 0.5]) for split in SPLITS}
    knn = {f"knn_{split}": np.log([[1.0, 0.1], [1.0, 0.1]]) for split in SPLITS}

    found = means(lm | knn, lmbda=0.2)

    assert found["lm_test"] == pytest.approx(np.log(0.5))
    assert found["knn_lm_test"] == pytest.approx(np.log(0.8 * 0.5 + 0.2))


def test_each_point_has_the_answers_of_an_mlp_of_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "fine_tuned"
    folder.mkdir()
    for number, point in enumerate(KEPT):
        save_tensors(folder / f"{point}.safetensors", {"keys": np.array([number])})
    contents = {"early": 1, "best": 2, "updates": 3, "activation": "relu"}
    write_manifest(folder, kind=FINE_TUNING, settings={}, made_from={}, contents=contents)
    monkeypatch.setattr(mlp, "_answers", lambda states, *_, **__: {"test": states["keys"]})

    mlp.train_macondo_mlp(Target(tmp_path / "mlp", "f", {"seed": "0"}), fine_tuned=folder, mlp={})

    answers = [load_file(tmp_path / f"mlp/{point}.safetensors")["test"].item() for point in KEPT]
    assert answers == [0, 1, 2]


def test_an_mlp_learns_the_datastore_and_nothing_else(monkeypatch, tmp_path):
    generator = np.random.default_rng(0)
    states = {"head": generator.random((5, 4), np.float32)}
    for kind in ("keys", "test_keys", *(f"queries_{split}" for split in SPLITS)):
        states[kind] = generator.random((3, 4), np.float32)
    for kind in ("values", "test_values", *(f"targets_{split}" for split in SPLITS)):
        states[kind] = generator.integers(0, 5, 3)
    learned = []
    monkeypatch.setattr(mlp, "train_on_pairs", lambda _, *pairs, **__: learned.append(pairs))
    settings = {"head": "random", "hidden": 4, "epochs": 1, "batch_size": 2, "lr": 0.1}

    mlp._answers(states, settings, activation="relu", seed=0, partial=tmp_path)

    assert learned[0][0] is states["keys"]
    assert learned[0][1] is states["values"]
