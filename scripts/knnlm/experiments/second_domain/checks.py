"""What the settings of second_domain must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that the datastore is that of an LM of another domain, of its own training data.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    name = settings["second_domain"]["datastore"]
    store = settings["datastores"][name]
    trained_on = settings["models"][store["model"]]["corpus"]
    if store["corpus"] != trained_on:
        raise SettingsError(
            f"datastores.{name}.corpus: expected {trained_on!r}, which its model "
            f"{store['model']!r} is trained on, got {store['corpus']!r}; a datastore of another "
            "corpus than the LM's belongs to domain_adaptation"
        )
    if store["corpus"] == settings["corpus"]:
        raise SettingsError(
            f"datastores.{name}.corpus: expected another corpus than the subject, got "
            f"{store['corpus']!r} again; name another one there and in models.{store['model']}, "
            "or leave second_domain out of `experiments`"
        )
