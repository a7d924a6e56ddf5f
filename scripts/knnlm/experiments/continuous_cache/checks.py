"""What the settings of continuous_cache must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that the control does read more context than the LM that it stands beside.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    stride, theirs = settings["continuous_cache"]["more_context_stride"], settings["queries"]
    if stride >= theirs["stride"]:
        raise SettingsError(
            f"continuous_cache.more_context_stride: expected fewer than {theirs['stride']} tokens, "
            f"the stride of the queries (queries.stride), got {stride}; with as long a stride the "
            "control would see no more left context than the LM"
        )
