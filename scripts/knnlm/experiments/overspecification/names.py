"""The names that the fine-tunings, the tables and the figure of overspecification share."""

from collections.abc import Mapping
from typing import Any

FINE_TUNING, MLP = "macondo_fine_tuning", "macondo_mlp"  # kinds of artifacts
KEPT = ("early", "best", "end")  # points of a training
METRIC = "child_log_likelihood"
ALL = 0  # families of any size, where a number of children is asked for


def temperatures(settings: Mapping[str, Any]) -> list[float]:
    """Return the relative temperatures that are scored: the fixed one, then the oracle's."""
    return [settings["temperature"], *settings["oracle"]["temperatures"]]
