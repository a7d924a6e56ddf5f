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
from knnlm.experiments.overspecification.scores import find, in_memory
from knnlm.retrieval.mlp_replacement import MlpReplacement, target_log_probs, train_on_pairs
from knnlm.runtime.artifacts import identity, read_manifest, write_manifest
from knnlm.runtime.logs import LOGGER, Progress
from knnlm.runtime.making import partial_folder, publish
from knnlm.runtime.signals import stop_if_asked
from knnlm.text.macondo.town import SPLITS

TRAINING = "training"  # folder of the state of the training in progress
SAVE_EVERY = 500  # updates between two states
BUFFER_MIB = 64  # keys shuffled together


def train_macondo_mlp(
    *,
    output: Path,
    fingerprint: str,
    fine_tuned: Path,
    mlp: Mapping[str, Any],
    scores: Mapping[str, Any],
    seed: int,
) -> None:
    """Train an MLP for each kept point of a fine-tuning and write what it makes of the children.

    The artifact (kind "macondo_mlp") has for each point {point}.safetensors: mlp_{split} (n,),
    mlp_test_tokens and knn_test_tokens (n_tokens,), all log-probabilities in nats; the kNN is at
    the fixed temperature.

    Args:
        output: the artifact.
        fingerprint: of the rule.
        fine_tuned: an artifact of `finetune_macondo`.
        mlp: the block overspecification.mlp of the config.
        scores: as in `finetune_macondo`.
        seed: of the weights and the order.
    """
    made_from = {"fine_tuned": identity(fine_tuned, kind=FINE_TUNING)}
    partial = partial_folder(output, fingerprint, made_from)
    contents = read_manifest(fine_tuned, kind=FINE_TUNING)["contents"]
    steps = {"early": contents["early"], "best": contents["best"], "end": contents["points"][-1]}
    done: dict[int, dict[str, NDArray[Any]]] = {}
    files = {point: partial / f"{point}.safetensors" for point in KEPT}
    progress = Progress(
        "MLPs", total=len(KEPT), unit="points", done=sum(f.is_file() for f in files.values())
    )
    for point, file in files.items():
        if file.is_file():
            done[steps[point]] = load_file(file)
            continue
        if steps[point] not in done:
            LOGGER.info("MLP for the point %s, after %s updates", point, f"{steps[point]:,}")
            states = load_file(fine_tuned / f"{point}.safetensors")
            done[steps[point]] = _answers(
                states,
                mlp,
                scores,
                activation=contents["activation"],
                seed=seed,
                partial=partial,
            )
        save_tensors(file, done[steps[point]])
        shutil.rmtree(partial / TRAINING, ignore_errors=True)
        progress.update(progress.done + 1)
        stop_if_asked()
    write_manifest(
        partial,
        kind=KIND,
        settings={"mlp": dict(mlp), "seed": seed},
        made_from=made_from,
        contents={"points": list(KEPT)},
    )
    publish(partial, output)


def _answers(
    states: Mapping[str, NDArray[Any]],
    mlp: Mapping[str, Any],
    scores: Mapping[str, Any],
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
        partial=partial / TRAINING,
    )
    found = {
        f"mlp_{split}": target_log_probs(
            module, states[f"queries_{split}"], states[f"targets_{split}"]
        )
        for split in SPLITS
    }
    targets = states["test_values"]
    found["mlp_test_tokens"] = target_log_probs(module, states["test_keys"], targets)
    neighbors = find(
        states["test_keys"], in_memory(states["keys"], states["values"]), k=scores["k"]
    )
    temperature = scores["temperature"] * float(states["mean_distance"][0])
    found["knn_test_tokens"] = neighbors.log_probs(targets, temperature=temperature)
    return found


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
