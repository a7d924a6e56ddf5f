"""What the settings of ruled_out must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.lm.architecture import STANDING_SITES
from knnlm.plan.sizes import UnknownModelError, entries, model_size
from knnlm.runtime.settings import SettingsError


def check(settings: Mapping[str, Any]) -> None:
    """Check what datastore and vocabulary allow, as far as their sizes are known beforehand.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    own, store = settings["ruled_out"], settings["baseline"]["datastore"]
    clustered, model = own["clustered_datastore"], settings["datastores"][store]["model"]
    most = max(clustered["clusters"])
    if most > clustered["train_keys"]:
        raise SettingsError(
            "ruled_out.clustered_datastore.train_keys: expected at least as many keys as clusters, "
            f"{most:,}, got {clustered['train_keys']:,}; raise it or take fewer clusters"
        )
    second, first = own["two_metrics"]["index"], settings["baseline"]["index"]
    metrics = [settings["indexes"][name]["metric"] for name in (first, second)]
    if metrics[0] == metrics[1]:
        raise SettingsError(
            f"ruled_out.two_metrics.index: expected an index of another metric than that of "
            f"baseline.index {first!r}, {metrics[0]}, got {second!r}; name one of another metric"
        )
    try:
        vocabulary = model_size(settings, model).vocabulary
        n_entries, _, _ = entries(settings, {"datastore": store})
    except UnknownModelError:
        return  # the jobs check it again
    if most > n_entries:
        raise SettingsError(
            "ruled_out.clustered_datastore.clusters: expected at most as many clusters as the "
            f"datastore {store!r} has entries, about {n_entries:,.0f}, got {most:,}; take fewer, "
            "or store more text"
        )
    if max(own["sparsified_lm"]["k"]) > vocabulary:
        raise SettingsError(
            f"ruled_out.sparsified_lm.k: expected at most the vocabulary of {model!r}, "
            f"{vocabulary:,} tokens, got {max(own['sparsified_lm']['k']):,}; lower it"
        )
    kept = {*STANDING_SITES, settings["datastores"][store]["site"]}
    for site in own["output_distances"]["sites"]:
        if site not in kept:
            raise SettingsError(
                "ruled_out.output_distances.sites: expected sites whose hidden states are kept of "
                f"the queries of {model!r}, {', '.join(sorted(kept))}, got {site!r}"
            )
