"""Relations between the settings of more_data and those of other blocks."""

from collections.abc import Mapping
from typing import Any

from knnlm.plan.sizes import INVERTED_FILES
from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that the LMs score the same tokens, and that there are shares to search.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    own, models = settings["more_data"], settings["models"]
    name = own["datastore"]
    model = settings["datastores"][name]["model"]
    engine = settings["indexes"][own["index"]]["engine"]
    if engine not in ("exact", *INVERTED_FILES):
        raise SettingsError(
            "more_data.index: expected an index of a stored datastore, whose shares can be "
            f"searched together, got {own['index']!r} with the engine {engine}; take exact"
        )
    for key in ("whole", "further"):
        if models[own[key]]["tokenizer"] != models[model]["tokenizer"]:
            raise SettingsError(
                f"more_data.{key}: expected a model with the tokenizer of {model!r}, "
                f"{models[model]['tokenizer']}, got {own[key]!r} with "
                f"{models[own[key]]['tokenizer']}; perplexities of other tokens do not compare"
            )
    if models[own["further"]].get("starts_from") != model:
        raise SettingsError(
            f"more_data.further: expected a model that starts from {model!r}, the LM of the "
            f"datastore {name!r}, got {own['further']!r}; set its starts_from"
        )
