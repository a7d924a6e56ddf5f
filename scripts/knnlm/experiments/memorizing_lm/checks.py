"""What the settings of memorizing_lm must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that the LM that memorizes can be mixed with the baseline's, and has learned its text.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    name = settings["memorizing_lm"]["model"]
    base_name = settings["datastores"][settings["baseline"]["datastore"]]["model"]
    model, base = settings["models"][name], settings["models"][base_name]
    key = "memorizing_lm.model"
    if name == base_name:
        raise SettingsError(
            f"{key}: expected another model than the baseline's own, got {name!r}; name one that "
            "was trained without dropout"
        )
    for which, one in ((name, model), (base_name, base)):
        if one["source"] != "trained":
            raise SettingsError(
                f"{key}: expected it and the LM of the baseline to be trained here, got {which!r}, "
                f"which is {one['source']}; its losses by epoch are not known, so leave "
                "memorizing_lm out of experiments"
            )
    for what in ("tokenizer", "corpus"):
        if model[what] != base[what]:
            raise SettingsError(
                f"{key}: expected a model with the {what} of {base_name!r}, {base[what]}, got "
                f"{name!r} with {model[what]}; let models.{name} extend {base_name}"
            )
