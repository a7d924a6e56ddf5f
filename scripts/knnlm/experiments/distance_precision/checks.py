"""Relations between the settings of distance_precision and those of other blocks."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that the index has both distances of what it finds.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    name = settings["distance_precision"]["index"]
    index = settings["indexes"][name]
    if index["engine"] != "ivfpq" or not index["rescore"]:
        raise SettingsError(
            "distance_precision.index: expected an index of the engine ivfpq with rescore: true, "
            f"which keeps the distances by codes beside the full ones, got {name!r} with the "
            f"engine {index['engine']}; set indexes.{name}.rescore, or name another"
        )
