"""A pretrained language model as an artifact: its files, our tokenizer and a window."""

import json
import os
from pathlib import Path
from typing import Any

from knnlm.lm.architecture import CONTEXT
from knnlm.lm.model import model_folder
from knnlm.lm.pretrained_folder import (
    CONFIG,
    check_pretrained_folder,
    require_vocabulary,
    weight_files,
)
from knnlm.runtime.artifacts import copy_file, identity, read_manifest, save_json
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, making
from knnlm.text.tokenizer import copy_tokenizer


def fetch_language_model(target: Target, *, tokenizer: Path, model: dict[str, Any]) -> None:
    """Write a model artifact from a pretrained model, for every rule that takes a trained one.

    The weights are hard links where the file system allows it. config.json stays as it is, but
    for the tokens of a window, which `anatomy.context` returns.

    Args:
        target: the artifact.
        tokenizer: the tokenizer artifact that the model was trained with.
        model: the block of the config: model (folder or hub name) and context.

    Raises:
        ValueError: if the model cannot be had, or is none that `check_pretrained_folder` takes,
            or the tokenizer is another model's.
        ArtifactError: if the tokenizer artifact is not whole.
    """
    key = f"models.{target.names.get('model', '')}.model"
    folder = model_folder(model["model"])
    shape = check_pretrained_folder(folder, key=key, context=model["context"])
    entries = read_manifest(tokenizer, kind="tokenizer")["contents"]["vocabulary_size"]
    require_vocabulary(shape, entries, model=model["model"], key=key)
    with making(
        target,
        kind="model",
        made_from={"tokenizer": identity(tokenizer, kind="tokenizer")},
        settings={"model": model},
    ) as made:
        for path in weight_files(folder, key=key):
            _link(path.resolve(), made.folder / path.name)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        save_json(made.folder / CONFIG, {**config, CONTEXT: model["context"]})
        copy_tokenizer(tokenizer, made.folder)
        made.contents |= shape._asdict() | {"context": model["context"]}
    LOGGER.info("%s: %s", model["model"], made.contents)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it to another file system."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target)
