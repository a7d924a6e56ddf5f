"""A model of our own as a Hugging Face folder: config.json and model.safetensors."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from knnlm.lm.architecture import CONTEXT
from knnlm.lm.gpt2 import Config, LanguageModel
from knnlm.runtime.artifacts import atomic_path

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
ARCHITECTURES = ["LanguageModel"]  # in config.json: the sign that a model is of our own


def save(model: LanguageModel, folder: Path) -> None:
    """Write config.json and model.safetensors, a shared matrix once, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {"architectures": ARCHITECTURES, "dtype": "float32", **asdict(model.config)}
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def is_ours(folder: Path) -> bool:
    """Return whether a folder holds what `save` wrote."""
    return json.loads((folder / CONFIG).read_text()).get("architectures") == ARCHITECTURES


def load(folder: Path) -> LanguageModel:
    """Return a saved model, fp32, on the CPU.

    Raises:
        OSError: if a file is missing.
        SafetensorError: if the weights are truncated.
        RuntimeError: if they do not fit the config.
    """
    described = json.loads((folder / CONFIG).read_text())
    known = {field.name for field in fields(Config)}
    config = Config(**{key: value for key, value in described.items() if key in known})
    setattr(config, CONTEXT, described.get(CONTEXT, config.n_positions))
    tensors = load_file(folder / WEIGHTS)
    with torch.device("meta"):
        model = LanguageModel(config)
    model.to_empty(device="cpu").tie()
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    model.load_state_dict(tensors)
    return model
