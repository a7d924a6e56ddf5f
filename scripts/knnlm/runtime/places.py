"""Folders by what their manifests say they are: the order in which they are handed on is nothing.

An evaluation gets many folders, one for each model, seed, corpus, split and index. Which is which
stands in the manifest that the job wrote, and must be what the folder's path claims.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from knnlm.runtime.artifacts import ArtifactError, read_manifest, rebuild_hint


class Places(dict[tuple[str, ...], Path]):
    """Folders of one kind by their names; a name that none of them has is an error."""

    def __init__(self, kind: str, by: Sequence[str]) -> None:
        super().__init__()
        self.kind, self.by = kind, tuple(by)

    def __getitem__(self, key: str | tuple[str | int, ...]) -> Path:
        """Return the folder with some names; seeds may be numbers."""
        names = key if isinstance(key, tuple) else (key,)
        return super().__getitem__(tuple(map(str, names)))

    def __missing__(self, key: tuple[str, ...]) -> Path:
        """Tell which folder is not there, and which are."""
        wanted = ", ".join(f"{name} {value}" for name, value in zip(self.by, key, strict=True))
        given = ", ".join(map(str, self.values())) or "none"
        raise ArtifactError(f"expected a folder of {self.kind} with {wanted}, got {given}")


def places(folders: Iterable[Path], *, kind: str, by: Sequence[str]) -> Places:
    """Return folders of one kind by the names in their manifests.

    Args:
        folders: in any order.
        kind: of each.
        by: the names that tell them apart, such as ("model", "seed", "split").

    Raises:
        ArtifactError: naming the folder whose manifest lacks a name, says another than its path
            does, or says the same as another's.
    """
    found = Places(kind, by)
    for folder in folders:
        names = read_manifest(folder, kind=kind).get("names", {})
        for name, value in names.items():
            if not {value, f"{name}{value}"} & set(folder.parts):
                raise ArtifactError(
                    f"expected {folder} to be what its path says, its manifest says {name} "
                    f"{value}; {rebuild_hint(folder)}"
                )
        missing = [name for name in by if name not in names]
        if missing:
            raise ArtifactError(
                f"expected the manifest of {folder} to tell its {missing[0]}, it tells "
                f"{', '.join(names) or 'none'}; {rebuild_hint(folder)}"
            )
        key = tuple(names[name] for name in by)
        if key in found:
            raise ArtifactError(
                f"expected folders that differ in {', '.join(by)}, got {found[key]} and {folder}"
            )
        found[key] = folder
    return found
