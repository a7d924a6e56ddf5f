"""What a datastore, and what stands in its place, cost: bytes on disk and counted FLOPs.

FLOPs are those of matrix products, two for a multiplication and an addition, for one query: a
token of the text. Those of search are the ones its method must do, whatever the program.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from knnlm.evidence.scored_text import Row
from knnlm.experiments.mlp_augmentation.continuation import LastLayers, untied
from knnlm.experiments.shared.cost import (
    ADDED,
    Flops,
    flops_of_model,
    flops_of_search,
    storage_of,
)
from knnlm.experiments.shared.flops import forward_flops, update_flops, without_data
from knnlm.lm.anatomy import head_weight, width
from knnlm.lm.model import load_model
from knnlm.retrieval.mlp_replacement import MlpReplacement, activation_of
from knnlm.runtime.artifacts import read_manifest


@dataclass(frozen=True)
class Stored:
    """The folders of one LM seed: indexes, replacements and controls by name."""

    model: Path
    datastore: Path
    indexes: Mapping[str, Path]
    replacements: Mapping[str, Path]
    controls: Mapping[str, Path]


def replacement_of(lm: nn.Module, head_setting: str, settings: Mapping[str, Any]) -> MlpReplacement:
    """Return an untrained replacement for an LM, in the shape that the settings give it."""
    return MlpReplacement(
        head_weight(lm),
        head_setting=head_setting,
        hidden=settings["hidden_multiple"] * width(lm),
        activation=activation_of(lm),
        seed=0,
    )


def flops_of_last_layers(lm: nn.Module) -> Flops:
    """Return the FLOPs of a second set of last layers; training reads the frozen ones below."""
    last = LastLayers(without_data(untied(lm)))
    residual = torch.empty(1, width(lm), device="meta")
    query = forward_flops(last, residual)
    below = flops_of_model(lm).query - query
    return Flops(query, update_flops(last, residual) + below)


def flops_of_replacement(module: MlpReplacement) -> Flops:
    """Return the FLOPs of a replacement; keys that are stored need none."""
    hollow = without_data(module)
    key = torch.empty(1, module.into.in_features, device="meta")
    return Flops(forward_flops(hollow, key), update_flops(hollow, key))


def storage_rows(names: Mapping[str, Any], stored: Stored) -> list[Row]:
    """Return the bytes of each way to store the datastore, and of what replaces it.

    A replacement stores its own parameters; a control, beside the LM, those that were trained.
    Both come as a share of each way as well.
    """
    ways = storage_of(stored.datastore, stored.indexes)
    rows = [_row(names, "knn_lm", way, "bytes", size, unit="bytes") for way, size in ways.items()]
    own = {
        ("mlp", head): read_manifest(folder, kind="mlp_replacement")["contents"]["own_bytes"]
        for head, folder in stored.replacements.items()
    }
    for control, folder in stored.controls.items():
        lm = load_model(folder)
        own[control, ""] = parameter_bytes(LastLayers(lm) if control == "last_layers" else lm)
    for (method, setting), size in own.items():
        rows.append(_row(names, method, setting, "bytes", size, unit="bytes"))
        rows += [
            _row(names, method, setting, f"share_of_{way}", 100 * size / whole, unit="percent")
            for way, whole in ways.items()
        ]
    return rows


def flops_rows(
    names: Mapping[str, Any],
    stored: Stored,
    training: Mapping[str, Any],
    *,
    indexes: Mapping[str, Mapping[str, Any]],
    ks: Mapping[str, int],
) -> list[Row]:
    """Return the FLOPs that a query costs beside the LM's own, and those of each training.

    Args:
        names: the names of the rows.
        stored: the folders.
        training: settings of the replacements.
        indexes: blocks of the config, by name.
        ks: neighbors that each index finds.
    """
    lm = load_model(stored.model)
    contents = read_manifest(stored.datastore, kind="datastore")["contents"]
    size = {"n_entries": contents["n_entries"], "dim": contents["dim"]}
    searches = {name: flops_of_search(index, **size, k=ks[name]) for name, index in indexes.items()}
    whole = flops_of_model(lm)
    rows = [_row(names, "lm", "", "flops_per_query", whole.query, unit="FLOPs")]
    rows += [
        _row(names, "knn_lm", name, ADDED, flops, unit="FLOPs") for name, flops in searches.items()
    ]
    for head, folder in stored.replacements.items():
        flops = flops_of_replacement(replacement_of(lm, head, training))
        pairs = read_manifest(folder, kind="mlp_replacement")["contents"]["pairs"]
        rows += _flops_rows(names, "mlp", head, flops, trained_on=pairs)
    for control, folder in stored.controls.items():
        flops = flops_of_last_layers(lm) if control == "last_layers" else whole
        tokens = read_manifest(folder, kind="model")["contents"]["tokens"]
        rows += _flops_rows(names, control, "", flops, trained_on=tokens)
    return rows


def _flops_rows(
    names: Mapping[str, Any], method: str, setting: str, flops: Flops, *, trained_on: int
) -> list[Row]:
    total = flops.training * trained_on
    return [
        _row(names, method, setting, ADDED, flops.query, unit="FLOPs"),
        _row(names, method, setting, "training_flops", total, unit="FLOPs", n=trained_on),
    ]


def parameter_bytes(module: nn.Module) -> int:
    """Return the bytes of the parameters of a module that require a gradient."""
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def _row(
    names: Mapping[str, Any],
    method: str,
    setting: str,
    metric: str,
    value: float,
    *,
    unit: str,
    n: int = 1,
) -> Row:
    """Return a row of a number that is counted, not estimated; n is what it was counted over."""
    kind = {"method": method, "setting": setting, "metric": metric}
    return {**names, **kind, "value": value, "n": n, "unit": unit}
