"""What the settings of rare_patterns must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that what is told apart is counted, and that as many neighbors as shown are found.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    own = settings["rare_patterns"]
    asked = {"contexts": max(own["contexts"]), "near_duplicate": own["near_duplicate"]}
    for name, length in asked.items():
        if length > own["longest"]:
            raise SettingsError(
                f"rare_patterns.{name}: expected at most rare_patterns.longest, {own['longest']} "
                f"tokens, got {length}; raise longest: what is longer is not counted"
            )
    k, shown = settings["search"]["k"], own["examples"]["neighbors"]
    if shown > k:
        raise SettingsError(
            f"rare_patterns.examples.neighbors: expected at most search.k, {k}, got {shown}; no "
            "more neighbors are stored"
        )
