"""What the settings of key_and_distance must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that each index has the metric that it is named for, and that keys are of one LM.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    block = settings["key_and_distance"]
    for metric, name in block["indexes"].items():
        if settings["indexes"][name]["metric"] != metric:
            raise SettingsError(
                f"key_and_distance.indexes.{metric}: expected an index of the metric {metric}, got "
                f"{name!r} of the metric {settings['indexes'][name]['metric']}"
            )
    att, ffn = (
        settings["datastores"][name]["model"]
        for name in (settings["baseline"]["datastore"], block["ffn"])
    )
    if att != ffn:
        raise SettingsError(
            f"key_and_distance.ffn: expected a datastore of the baseline's LM, {att!r}, whose "
            f"probabilities it is mixed with, got {block['ffn']!r} of {ffn!r}"
        )
