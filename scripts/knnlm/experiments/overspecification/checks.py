"""What the settings of overspecification must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check that models are compared on families of the same sizes, with one level of chance.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    towns, compared = settings["macondo"]["towns"], settings["overspecification"]["compare"]
    chosen = [settings["fine_tunings"][name]["town"] for name in compared]
    sizes = {
        name: (towns[name]["villagers_per_count"], towns[name]["max_children"]) for name in chosen
    }
    if len(set(sizes.values())) > 1:
        raise SettingsError(
            "overspecification.compare: expected towns of one size, got (villagers_per_count, "
            f"max_children) of {', '.join(f'{name} {size}' for name, size in sizes.items())}; "
            "change the sizes of macondo, or compare the models in two runs"
        )
