"""What is kept of a projection: how near each query came to p, and how well it predicts there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.experiments.softmax_bottleneck.projection import Scores
from knnlm.runtime.artifacts import ArtifactError, atomic_path, rebuild_hint

PER_QUERY = ("nll", "kl_p_f", "kl_f_p")  # of `Scores`

Arrays = dict[str, NDArray[Any]]


def arrays_of(scores: Scores, *, prefix: str = "") -> Arrays:
    """Return nll of the targets and both KLs, (n,) float64 in nats, by name."""
    return {prefix + name: getattr(scores, name).cpu().numpy() for name in PER_QUERY}


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def save_scores(path: Path, places: NDArray[np.int64], arrays: Mapping[str, Any]) -> None:
    """Write what one projection reached, and of which queries, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, places=places, **arrays)


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
