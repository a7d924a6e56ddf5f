"""What the settings of mlp_augmentation must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that a batch of pairs is as many whole windows of text for the controls.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    training = settings["mlp_augmentation"]["training"]
    name = settings["datastores"][settings["baseline"]["datastore"]]["model"]
    context = settings["models"][name]["context"]
    if training["batch_size"] % (training["accumulation"] * context):
        raise SettingsError(
            "mlp_augmentation.training.batch_size: expected a multiple of "
            f"{training['accumulation']} x {context}, accumulation x the context of model "
            f"{name!r}, got {training['batch_size']}; the controls read whole windows"
        )
