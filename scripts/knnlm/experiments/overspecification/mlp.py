"""LM + MLP on Macondo: a network trained on the datastore's pairs, asked for the children.

Chiang et al. (2024), Section 5 and Appendix D, with the module of `mlp_replacement`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from knnlm.experiments.overspecification.finetuning import save_tensors
from knnlm.experiments.overspecification.names import FINE_TUNING, KEPT
from knnlm.experiments.overspecification.names import MLP as KIND
from knnlm.retrieval.mlp_replacement import MlpReplacement, replacement_log_probs, train_on_pairs
from knnlm.runtime.artifacts import identity, read_manifest
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, each_missing, making
from knnlm.text.macondo.town import SPLITS

TRAINING = "training"  # folder of the state of the training in progress
SAVE_EVERY = 500  # updates between two states
BUFFER_MIB = 64  # keys shuffled together


def train_macondo_mlp(target: Target, *, fine_tuned: Path, mlp: Mapping[str, Any]) -> None:
    """Train an MLP for each kept point of a fine-tuning and write what it makes of the children.

    The artifact (kind "macondo_mlp") has for each point {point}.safetensors: {split} (n,) and
    test_tokens (n_tokens,), log-probabilities in nats.

    Args:
        target: the artifact.
        fine_tuned: an artifact of `finetune_macondo`.
        mlp: an entry of overspecification.mlps in the config.
    """
    with making(
        target,
        kind=KIND,
        made_from={"fine_tuned": identity(fine_tuned, kind=FINE_TUNING)},
        settings={"mlp": dict(mlp), "seed": target.seed},
    ) as made:
        contents = read_manifest(fine_tuned, kind=FINE_TUNING)["contents"]
        steps = {"early": contents["early"], "best": contents["best"], "end": contents["updates"]}
        files = {point: made.folder / f"{point}.safetensors" for point in KEPT}
        done = {steps[p]: load_file(file) for p, file in files.items() if file.is_file()}
        for point in each_missing(files, label="MLPs", name="points"):
            if steps[point] not in done:
                LOGGER.info("MLP for the point %s, after %s updates", point, f"{steps[point]:,}")
                done[steps[point]] = _answers(
                    load_file(fine_tuned / f"{point}.safetensors"),
                    mlp,
                    activation=contents["activation"],
                    seed=target.seed,
                    partial=made.folder / TRAINING,
                )
            save_tensors(files[point], done[steps[point]])
            shutil.rmtree(made.folder / TRAINING, ignore_errors=True)
        made.contents |= {"points": list(KEPT)}


def _answers(
    states: Mapping[str, NDArray[Any]],
    mlp: Mapping[str, Any],
    *,
    activation: str,
    seed: int,
    partial: Path,
) -> dict[str, NDArray[Any]]:
    module = MlpReplacement(
        torch.from_numpy(states["head"]),
        head_setting=mlp["head"],
        hidden=mlp["hidden"],
        activation=activation,
        seed=seed,
    )
    train_on_pairs(
        module,
        states["keys"],
        states["values"],
        settings=_training(mlp, n_entries=len(states["values"])),
        seed=seed,
        partial=partial,
    )
    asked = {split: (states[f"queries_{split}"], states[f"targets_{split}"]) for split in SPLITS}
    asked["test_tokens"] = (states["test_keys"], states["test_values"])
    return {name: replacement_log_probs(module, *pairs) for name, pairs in asked.items()}


def _training(mlp: Mapping[str, Any], *, n_entries: int) -> dict[str, Any]:
    """Return the settings of `train_on_pairs`: Adam, its rate falling to (almost) 0."""
    adam = {"name": "adam", "lr": mlp["lr"], "betas": [0.9, 0.999], "weight_decay": 0.0}
    return {
        "epochs": mlp["epochs"],
        "batch_size": min(mlp["batch_size"], n_entries),
        "accumulation": 1,
        "optimizer": adam,
        "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
        "clip_norm": None,
        "precision": "fp32",
        "save_every": SAVE_EVERY,
        "buffer_mib": BUFFER_MIB,
    }
