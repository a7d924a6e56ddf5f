"""A pretrained model in a folder, judged by its files: may it stand where a trained one does.

Standard library only: the Snakefile asks before any job, and asks for the shape by which jobs are
planned.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from knnlm.lm.architecture import ARCHITECTURES

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"  # of weights in several files
WEIGHTS = ("model.safetensors", INDEX)
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
REMEDY = "save it with save_pretrained of transformers, which reads pickled and GGUF weights too"


class Shape(NamedTuple):
    """The shape of a model, in the words of the blocks of `models`."""

    model_type: str
    layers: int
    width: int
    heads: int
    key_value_heads: int
    ffn_width: int
    vocabulary_size: int
    positions: int
    tied_embeddings: bool


def check_pretrained_folder(
    folder: Path, *, key: str = "model", context: int | None = None, tokenizer: Path | None = None
) -> Shape:
    """Check that a folder holds a pretrained model that every rule can take.

    Args:
        folder: with config.json and safetensors.
        key: of the folder in the config, for messages, such as "models.smollm2.model".
        context: tokens of a window, if the model must be able to read them.
        tokenizer: a folder with the tokenizer.json of the model, if that should be compared.

    Returns:
        The shape of the model.

    Raises:
        ValueError: if the folder has no readable config.json, another architecture than those of
            the anatomy, or no safetensors; if the window is longer than the model's positions,
            or the tokenizer has more entries than the model's embedding.
    """
    shape = read_shape(folder / CONFIG, key=key)
    weight_files(folder, key=key)
    if context is not None and context > shape.positions:
        raise ValueError(
            f"{key.removesuffix('.model')}.context: expected at most the {shape.positions:,} "
            f"positions of {folder}, got {context:,}; lower it"
        )
    if tokenizer is not None:
        require_vocabulary(shape, _entries(tokenizer / "tokenizer.json"), model=folder, key=key)
    return shape


def read_shape(config: Path, *, key: str = "model") -> Shape:
    """Return the shape that a config.json describes, in the field names of each family.

    Raises:
        ValueError: if it cannot be read, is of an unknown architecture or lacks a size.
    """
    try:
        described: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{key}: expected a folder with {CONFIG} and model.safetensors, got {config.parent}, "
            f"whose {CONFIG} cannot be read ({error}); correct the folder"
        ) from error
    model_type = described.get("model_type")
    if model_type not in ARCHITECTURES:
        raise ValueError(
            f"{key}: expected a model of type {', '.join(ARCHITECTURES)}, got {model_type} in "
            f"{config}; add its parts to the table in scripts/knnlm/lm/architecture.py"
        )
    family = ARCHITECTURES[model_type]
    layers, width, heads, ffn_width, positions = (described.get(name) for name in family.sizes)
    if ffn_width is None and width is not None:
        ffn_width = 4 * width  # as GPT-2 has it
    sizes = (layers, width, heads, ffn_width, described.get("vocab_size"), positions)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"{key}: expected {config} to give {', '.join(family.sizes)} and vocab_size as whole "
            f"numbers above 0, got {', '.join(map(str, sizes))}; correct the file"
        )
    return Shape(
        model_type,
        layers,
        width,
        heads,
        described.get("num_key_value_heads") or heads,
        ffn_width,
        described["vocab_size"],
        positions,
        described.get("tie_word_embeddings", family.tied),
    )


def weight_files(folder: Path, *, key: str = "model") -> list[Path]:
    """Return the files of the weights: one, or an index and those that it names.

    Raises:
        ValueError: if there are none, or only such as run code when they are read.
    """
    wanted = f"{key}: expected {folder} to hold model.safetensors, or {INDEX} and its files"
    whole, index = (folder / name for name in WEIGHTS)
    if whole.is_file():
        return [whole]
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise ValueError(f"{wanted}, got no {missing[0]}; fetch the model again")
        return [index, *files]
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        raise ValueError(
            f"{wanted}, got pickled weights only ({pickled[0]}), which may run code when they are "
            f"read; {REMEDY}"
        )
    present = ", ".join(sorted(path.name for path in folder.iterdir()))
    raise ValueError(f"{wanted}, got no weights ({present}); correct the folder, or {REMEDY}")


def require_vocabulary(shape: Shape, entries: int, *, model: object, key: str = "model") -> None:
    """Check that a model has a row for each entry of a tokenizer.

    Raises:
        ValueError: if it has not: the tokenizer is another model's.
    """
    if entries > shape.vocabulary_size:
        raise ValueError(
            f"{key.removesuffix('.model')}.tokenizer: expected at most the "
            f"{shape.vocabulary_size:,} entries that the embedding of {model} has, got "
            f"{entries:,}; name the tokenizer that the model was trained with"
        )


def _entries(tokenizer: Path) -> int:
    """Return the rows that the entries of a tokenizer.json need."""
    described = json.loads(tokenizer.read_text(encoding="utf-8"))
    vocabulary = described["model"]["vocab"]
    # A unigram model lists its entries, the others give each its number.
    of_model = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    return 1 + max([*of_model, *(token["id"] for token in described["added_tokens"])])
