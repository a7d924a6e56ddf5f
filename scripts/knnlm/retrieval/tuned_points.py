"""Tuned points of several datastores, seeds and indexes, told apart by what they say they are."""

from collections.abc import Iterable
from pathlib import Path

from knnlm.retrieval.tuning import NAMES, Tuned, read_tuned
from knnlm.runtime.artifacts import ArtifactError


class TunedPoints(dict[tuple[str, ...], Tuned]):
    """Tuned points by datastore, seed, index and corpus; seeds may be numbers."""

    def __getitem__(self, key: tuple[str | int, ...]) -> Tuned:
        """Return the point of these names."""
        return super().__getitem__(tuple(map(str, key)))

    def __missing__(self, key: tuple[str, ...]) -> Tuned:
        """Tell which point is not there, and which are."""
        there = ", ".join(map("/".join, self)) or "none"
        raise ArtifactError(f"expected a tuned point of {'/'.join(key)}, got {there}")


def tuned_points(paths: Iterable[Path]) -> TunedPoints:
    """Return tuned points by (datastore, seed, index, corpus), from files in any order.

    Raises:
        ArtifactError: see `read_tuned`; or if two files are of the same names.
    """
    points = TunedPoints()
    for path in paths:
        tuned = read_tuned(path)
        key = tuple(tuned.names[name] for name in NAMES)
        if key in points:
            raise ArtifactError(f"expected one tuned point of {'/'.join(key)}, got {path} too")
        points[key] = tuned
    return points
