"""What the settings of temperature must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that the shares are some in which neighbors are searched.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    searched = settings["approximate_search"]["shares"]
    for share in settings["temperature"]["shares"]:
        if share not in searched:
            raise SettingsError(
                f"temperature.shares: expected some of approximate_search.shares, {searched}, in "
                f"which neighbors are searched, got {share}"
            )
