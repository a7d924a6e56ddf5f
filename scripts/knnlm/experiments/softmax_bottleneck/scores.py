"""What is kept of a projection: how near each query came to p, and how well it predicts there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.experiments.softmax_bottleneck.projection import Scores
from knnlm.runtime.artifacts import (
    ArtifactError,
    atomic_path,
    identity,
    rebuild_hint,
)

PER_QUERY = ("nll", "kl_p_f", "kl_f_p")  # of `Scores`

Arrays = dict[str, NDArray[Any]]


def arrays_of(scores: Scores, *, prefix: str = "") -> Arrays:
    """Return nll of the targets and both KLs, (n,) float64 in nats, by name."""
    return {prefix + name: getattr(scores, name).cpu().numpy() for name in PER_QUERY}


def save_scores(path: Path, places: NDArray[np.int64], arrays: Mapping[str, Any]) -> None:
    """Write what one projection reached, and of which queries, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, places=places, **arrays)


def origins_of(
    *, model: Path, queries: Path, neighbors: Path, heads: Mapping[str, Path]
) -> dict[str, str]:
    """Return the identities of what projections are made from.

    Args:
        model: the LM that is projected on.
        queries: of test, scored by the LM.
        neighbors: of these queries.
        heads: other models whose heads are tried, by name.
    """
    origins = {
        "model": identity(model, kind="model"),
        "queries": identity(queries, kind="queries"),
        "neighbors": identity(neighbors, kind="neighbors"),
    }
    for name, folder in heads.items():
        origins[f"head of {name}"] = identity(folder, kind="model")
    return origins


def read_scores(path: Path, places: NDArray[np.int64]) -> Arrays:
    """Read one projection of the given queries.

    Raises:
        ArtifactError: if it is of other queries.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    if not np.array_equal(arrays.pop("places"), places):
        raise ArtifactError(
            f"expected {path} to hold the {len(places):,} sampled queries, it holds others; "
            f"{rebuild_hint(path.parent)}"
        )
    return arrays
