"""What the settings of softmax_bottleneck must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that the LM's own head is cut to fewer ranks, and that other heads share its tokens.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    experiment = settings["softmax_bottleneck"]
    name = settings["datastores"][settings["baseline"]["datastore"]]["model"]
    model, ranks = settings["models"][name], experiment["ranks"]
    if model["source"] == "trained" and max(ranks) >= model["width"]:
        raise SettingsError(
            f"softmax_bottleneck.ranks: expected ranks below {model['width']}, the width of model "
            f"{name!r}, got {max(ranks)}; the whole head is always a row"
        )
    for other in experiment["heads"]:
        tokenizer = settings["models"][other]["tokenizer"]
        if tokenizer != model["tokenizer"]:
            raise SettingsError(
                f"softmax_bottleneck.heads: expected models with the tokenizer of {name!r}, "
                f"{model['tokenizer']}, got {other!r} with {tokenizer}"
            )
