"""A trained replacement as an artifact: trained on the shards of a datastore, stored, loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model
from knnlm.lm.process import this_process
from knnlm.lm.state import trained
from knnlm.lm.training import STATE
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.mlp_replacement import (
    MlpReplacement,
    activation_of,
    train_on,
)
from knnlm.retrieval.pair_training import pair_recipe
from knnlm.retrieval.pairs import ShuffledPairs
from knnlm.runtime.artifacts import (
    ArtifactError,
    atomic_path,
    identity,
    read_manifest,
    rebuild_hint,
    require_origin,
)
from knnlm.runtime.making import Target, making

KIND = "mlp_replacement"
WEIGHTS = "replacement.safetensors"
LOG = "training.parquet"


def train_replacement(
    target: Target, *, datastore: Path, model: Path, settings: Mapping[str, Any]
) -> None:
    """Train a replacement on the shards of a datastore and publish it.

    Args:
        target: its own weights and the log of the training; its `head` is a head setting, see
            `MlpReplacement`, and its seed that of the weights and the order.
        datastore: the pairs.
        model: folder of the LM whose hidden states the keys are; it gives W and the activation.
        settings: see `train_on_pairs`, and hidden_multiple: hidden size over the key's.

    Raises:
        ArtifactError: if the datastore was made from another model.
        ValueError: see `MlpReplacement` and `train_on_pairs`.
    """
    made_from = {"model": identity(model, kind="model")}
    require_origin(datastore, kind="datastore", role="model", expected=made_from["model"])
    made_from["datastore"] = identity(datastore, kind="datastore")
    store, lm, seed = open_datastore(datastore), load_model(model), target.seed
    shape = {
        "head_setting": target.names["head"],
        "hidden": settings["hidden_multiple"] * store.dim,
        "activation": activation_of(lm),
    }
    module = MlpReplacement(head_weight(lm), **shape, seed=seed)
    pairs = ShuffledPairs(store.shards, buffer_mib=settings["buffer_mib"], seed=seed)
    leads = this_process().is_main_process
    with making(
        target,
        kind=KIND,
        made_from=made_from,
        settings={**shape, "training": dict(settings), "seed": seed},
        publishes=leads,
    ) as made:
        if not (made.folder / LOG).is_file():  # written last
            rows = train_on(module, pairs, settings=settings, seed=seed, partial=made.folder)
            if leads:
                _save(made.folder, module, rows)
        if leads:
            (made.folder / STATE).unlink(missing_ok=True)
        updates = pair_recipe(settings, n_entries=pairs.n_entries, seed=seed).steps
        counted = {"updates": updates, "pairs": updates * settings["batch_size"]}
        made.contents |= {"own_bytes": module.own_bytes, **counted}


def load_replacement(folder: Path, *, model: Path) -> MlpReplacement:
    """Return a trained replacement in eval mode, fp32, on the CPU.

    Args:
        folder: the artifact.
        model: folder of the LM that it was trained with; a frozen head is read from there.

    Raises:
        ArtifactError: if it was trained with another model, or is not whole.
    """
    settings = read_manifest(folder, kind=KIND)["settings"]
    expected = identity(model, kind="model")
    require_origin(folder, kind=KIND, role="model", expected=expected)
    shape = {name: settings[name] for name in ("head_setting", "hidden", "activation", "seed")}
    module = MlpReplacement(head_weight(load_model(model)), **shape)
    own = dict(trained(module))
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ArtifactError(
            f"{folder / WEIGHTS} cannot be read ({error}); {rebuild_hint(folder)}"
        ) from error
    if set(weights) != set(own):
        raise ArtifactError(
            f"expected {folder / WEIGHTS} to hold {', '.join(own)}, got {', '.join(weights)}; "
            f"{rebuild_hint(folder)}"
        )
    module.load_state_dict(weights, strict=False)
    return module.eval()


def _save(partial: Path, module: MlpReplacement, rows: list[dict[str, float]]) -> None:
    own = {name: p.detach().cpu().contiguous() for name, p in trained(module)}
    with atomic_path(partial / WEIGHTS) as temporary:
        save_file(own, temporary)
    with atomic_path(partial / LOG) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
