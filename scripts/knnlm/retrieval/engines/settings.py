"""What engines there are, and which of their settings fit a datastore. No torch and no faiss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knnlm.retrieval.engines.nearest import METRICS
from knnlm.retrieval.parts import join_parts
from knnlm.runtime.artifacts import identity
from knnlm.runtime.making import Target, making

INVERTED_FILES = ("ivf_flat", "ivfpq")  # the engines with an index on disk
ENGINES = ("exact", "fused", *INVERTED_FILES)
TRAINED = "trained.faiss"
CODE_BITS = 8  # of each part of a code, as in the paper: 256 centroids a part


def build_index(
    target: Target,
    *,
    index: Mapping[str, Any],
    datastore: Sequence[Path],
    head: Sequence[Path],
    parts: Sequence[Path],
) -> None:
    """Publish an index: the trained one and the codes of every part, under one name.

    Exact search needs no index, and the fused engine not even a datastore: their artifact is a
    manifest with the settings.

    Args:
        target: what is made.
        index: the entry of the config.
        datastore: its folder; none for the fused engine.
        head: the trained index; none for an engine without one.
        parts: the codes of each part, in order; none for an engine without an index.

    Raises:
        ValueError: if the engine or the metric is none that there is.
        ArtifactError: if the parts do not belong together.
    """
    check_engine(index)
    if index["engine"] in INVERTED_FILES:
        join_parts(target, kind="index", parts=parts, heads=head)
        return
    origin = [("datastore", identity(folder, kind="datastore")) for folder in datastore]
    settings = {**index, "seed": target.seed}
    with making(target, kind="index", made_from=dict(origin), settings=settings) as made:
        made.contents["engine"] = index["engine"]


def check_engine(index: Mapping[str, Any]) -> None:
    """Check that there is such an engine, and that it has such a metric.

    Raises:
        ValueError: naming the setting, what was expected and what was given.
    """
    engine, metric = index["engine"], index.get("metric", "l2")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine}")
    if metric not in METRICS:
        supported = ", ".join(METRICS)
        raise ValueError(f"the engine {engine} supports the metric {supported}, got {metric}")


def check_index(index: Mapping[str, Any], *, n_entries: int, dim: int) -> None:
    """Check that the settings of an index fit a datastore.

    Raises:
        ValueError: naming the setting, what was expected and what was given.
    """
    check_engine(index)
    engine = index["engine"]
    if engine not in INVERTED_FILES:
        return
    n_train = min(index["train_keys"], n_entries)
    n_centroids, n_probes = index["n_centroids"], index["n_probes"]
    if not 1 <= n_centroids <= n_train:
        raise ValueError(
            f"n_centroids must be from 1 to the {n_train:,} keys that {engine} is trained on, got "
            f"{n_centroids:,}; lower it, or raise train_keys"
        )
    if not 1 <= n_probes <= n_centroids:
        raise ValueError(
            f"n_probes must be from 1 to the {n_centroids:,} centroids, got {n_probes:,}"
        )
    if engine == "ivfpq" and (index["code_bytes"] < 1 or dim % index["code_bytes"]):
        raise ValueError(
            f"code_bytes must divide the width of the keys, {dim}, got {index['code_bytes']}"
        )
    if engine == "ivfpq" and n_train < 1 << CODE_BITS:
        raise ValueError(
            f"ivfpq needs at least {1 << CODE_BITS} keys to train on, got {n_train:,}; use more "
            "text or ivf_flat"
        )
