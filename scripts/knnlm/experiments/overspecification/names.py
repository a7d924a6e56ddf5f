"""The names that the fine-tunings, the tables and the figure of overspecification share."""

from collections.abc import Mapping
from typing import Any

FINE_TUNING, MLP = "macondo_fine_tuning", "macondo_mlp"  # kinds of artifacts
KEPT = ("early", "best", "end")  # points of a training
METRIC = "child_log_likelihood"
PAPER_CHILDREN = 1500  # of the town of Chiang et al. (2024), for which k is given
ALL = 0  # families of any size, where a number of children is asked for


def neighbors_in_town(k: int, *, children: int) -> int:
    """Return how many neighbors a query gets: the k of the paper's town, in proportion.

    A datastore of fewer sentences has fewer entries of everything. With all of the paper's 1,024
    neighbors in a town of 300 children, more than half could not be names of children, and they
    would set the mean distance, which is the unit of the temperature.
    """
    return max(1, round(k * children / PAPER_CHILDREN))


def temperatures(settings: Mapping[str, Any]) -> list[float]:
    """Return the relative temperatures that are scored: the fixed one, then the oracle's."""
    return [settings["temperature"], *settings["oracle"]["temperatures"]]
