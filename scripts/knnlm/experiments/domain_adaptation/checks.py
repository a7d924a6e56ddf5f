"""What the settings of domain_adaptation must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError

KEY = "domain_adaptation"


def check(settings: Mapping[str, Any]) -> None:
    """Check that an LM is adapted to another corpus than its own, and that all have its tokens.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    own, datastores, models = settings[KEY], settings["datastores"], settings["models"]
    home, store = datastores[own["home"]], datastores[own["datastore"]]
    base = home["model"]
    if home["corpus"] != models[base]["corpus"]:
        raise SettingsError(
            f"{KEY}.home: expected a datastore of {models[base]['corpus']!r}, the corpus that its "
            f"model {base!r} is trained on, got {own['home']!r} of {home['corpus']!r}"
        )
    if store["model"] != base:
        raise SettingsError(
            f"{KEY}.datastore: expected one with keys of {base!r}, as {KEY}.home has them, got "
            f"{own['datastore']!r} of {store['model']!r}; let datastores.{own['datastore']} extend "
            f"{own['home']} and name only its corpus"
        )
    if store["corpus"] == models[base]["corpus"]:
        raise SettingsError(
            f"datastores.{own['datastore']}.corpus: expected another corpus than {base!r} is "
            f"trained on, got {store['corpus']!r} again; name another one, or leave {KEY} out of "
            "`experiments`"
        )
    for key, name in [("trained_there", own["trained_there"])] + [
        ("fine_tuned", name) for name in own["fine_tuned"]
    ]:
        _same_tokens(models, f"{KEY}.{key}", name, base)
        if models[name]["corpus"] != store["corpus"]:
            raise SettingsError(
                f"{KEY}.{key}: expected a model trained on {store['corpus']!r}, the corpus of "
                f"datastores.{own['datastore']}, got {name!r}, trained on "
                f"{models[name]['corpus']!r}"
            )
    for name in own["fine_tuned"]:
        if models[name].get("starts_from") != base:
            raise SettingsError(
                f"{KEY}.fine_tuned: expected models that start from {base!r}, got {name!r}; set "
                f"models.{name}.starts_from to {base}"
            )


def _same_tokens(models: Mapping[str, Any], key: str, name: str, base: str) -> None:
    """Check that the perplexities of two models are of the same tokens."""
    ours, its = models[base]["tokenizer"], models[name]["tokenizer"]
    if its != ours:
        raise SettingsError(
            f"{key}: expected a model with the tokenizer of {base!r}, {ours}, got {name!r} with "
            f"{its}; values of the datastore and perplexities would be of other tokens. To share "
            f"one, set models.{name}.tokenizer to {ours}: a tokenizer may be trained on another "
            "corpus than the model"
        )
