"""Experiments: every folder of workflow/experiments, read once, with its settings and its parts.

A folder brings its own block of the config, what each scale changes in it, its schema, and entries
that it adds to shared blocks, such as datastores of its own. Nothing else names it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from knnlm.runtime.settings import SettingsError, deep_merge

PARTS = (
    "rules.smk",
    "settings.yaml",
    "caption.rst",
)  # claims.yaml and headlines.yaml may be left out
MODULES = ("table.py", "figure.py")
KEYS = ("order", "paper", "settings", "scales", "adds", "adds_at", "schema")
MAY_LACK = {"scales", "adds", "adds_at"}


@dataclass(frozen=True)
class Experiment:
    """One folder.

    Attributes:
        name: of the folder, of its block in the config and of its target rule.
        folder: with rules, settings, caption, claims, and perhaps headlines.
        order: its place in the report.
        paper: the id of the paper that it is part of, the first of several.
        settings: its block of the config.
        scales: what each scale changes in the block.
        adds: entries of shared blocks, by block and name.
        adds_at: what each scale changes in them.
        schema: of the block.
    """

    name: str
    folder: Path
    order: int
    paper: str
    settings: Mapping[str, Any]
    scales: Mapping[str, Mapping[str, Any]]
    adds: Mapping[str, Mapping[str, Any]]
    adds_at: Mapping[str, Mapping[str, Mapping[str, Any]]]
    schema: Mapping[str, Any]

    @property
    def costs_money(self) -> bool:
        """Whether it runs only when it is asked for by name, and asks for a confirmation."""
        return "confirm" in self.settings


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds, by libyaml where it is there: every job reads settings."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)


def read_experiments(root: Path) -> dict[str, Experiment]:
    """Return all experiments by name, in the order of the report.

    Args:
        root: the folder of the Snakefile.

    Raises:
        SettingsError: naming the folder and the part that is missing or unknown.
    """
    folders = (path for path in sorted((root / "workflow/experiments").iterdir()) if path.is_dir())
    found = [_read(root, folder) for folder in folders]
    return {one.name: one for one in sorted(found, key=lambda one: (one.order, one.name))}


def _read(root: Path, folder: Path) -> Experiment:
    library = root / "scripts/knnlm/experiments" / folder.name
    needed = [folder / part for part in PARTS] + [library / module for module in MODULES]
    missing = [str(path.relative_to(root)) for path in needed if not path.is_file()]
    if missing:
        raise SettingsError(
            f"the experiment {folder.name} has no {', no '.join(missing)}; add what is missing "
            "(docs/extending.md), or remove its folder from workflow/experiments"
        )
    block = read_yaml(folder / "settings.yaml")
    given = set(block) if isinstance(block, Mapping) else set()
    if not set(KEYS) - MAY_LACK <= given <= set(KEYS):
        raise SettingsError(
            f"{folder.relative_to(root)}/settings.yaml: expected the keys order, paper, settings "
            "and schema, and perhaps scales, adds and adds_at, got "
            f"{', '.join(sorted(given)) or 'none'}"
        )
    parts = {name: {} for name in MAY_LACK} | block
    return Experiment(folder.name, folder, **parts)


def with_experiments(
    config: Mapping[str, Any], schema: Mapping[str, Any], experiments: Collection[Experiment]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return defaults and schema of a run with the parts that the experiments bring.

    Args:
        config: what config.yaml says, before anything is laid over it.
        schema: of the shared blocks.
        experiments: all of them.

    Raises:
        SettingsError: if an experiment, or an entry that one adds, has a name that is taken.
    """
    config, properties = dict(config), dict(schema["properties"])
    scales = {scale: dict(changed or {}) for scale, changed in config["scales"].items()}
    for one in experiments:
        if one.name in config:
            raise SettingsError(
                f"workflow/experiments/{one.name}: expected a name that no block of config.yaml "
                "has; rename the folder"
            )
        config[one.name], properties[one.name] = one.settings, one.schema
        for block, entries in one.adds.items():
            config[block] = _added(one, block, config.get(block), entries)
        for scale in {**one.scales, **one.adds_at}:
            if scale not in scales:
                raise SettingsError(
                    f"workflow/experiments/{one.name}/settings.yaml: unknown scale {scale!r}; "
                    f"known scales: {', '.join(scales)}"
                )
            changed = _changed_at(one, scale)
            if scale in one.scales:
                changed[one.name] = one.scales[scale]
            scales[scale] = deep_merge(scales[scale], changed)
    names = [one.name for one in experiments]
    required = [*schema["required"], *names]
    properties["experiments"] = {
        **properties["experiments"],
        "items": {"enum": names},
    }
    whole = {**schema, "properties": properties, "required": required}
    return config | {"scales": scales}, whole


def _changed_at(one: Experiment, scale: str) -> dict[str, Any]:
    """Return what a scale changes in the entries that an experiment adds to shared blocks."""
    for block, entries in one.adds_at.get(scale, {}).items():
        foreign = sorted(set(entries) - set(one.adds.get(block, {})))
        if foreign:
            raise SettingsError(
                f"workflow/experiments/{one.name}/settings.yaml: adds_at.{scale}.{block}: expected "
                f"entries that adds.{block} has, got {foreign[0]!r}; others belong to config.yaml"
            )
    return dict(one.adds_at.get(scale, {}))


def _added(
    one: Experiment, block: str, there: Any, entries: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return a shared block with the entries that an experiment adds."""
    where = f"workflow/experiments/{one.name}/settings.yaml: adds.{block}"
    if not isinstance(there, Mapping):
        raise SettingsError(f"{where}: expected a block of named entries of config.yaml")
    taken = sorted(set(there) & set(entries))
    if taken:
        raise SettingsError(f"{where}: the name {taken[0]!r} is taken; choose another")
    return {**there, **entries}
