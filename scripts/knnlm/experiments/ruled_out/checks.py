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
    _trained(settings, own["trained"], store)
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


def _trained(settings: Mapping[str, Any], trained: Mapping[str, Any], store: str) -> None:
    """Check that LMs are trained on as many tokens, and learn from their control and its keys."""
    models, stores = settings["models"], settings["datastores"]
    base = stores[store]["model"]
    names = [trained["control"], *trained["lms"].values()]
    if stores.get(trained["control"], {}).get("model") != trained["control"]:
        raise SettingsError(
            "ruled_out.trained.control: expected a model with a datastore of its name and of its "
            f"own keys, got {trained['control']!r}"
        )
    for name in names:
        model = models[name]
        if model["source"] != "trained" or model["tokenizer"] != models[base]["tokenizer"]:
            raise SettingsError(
                f"ruled_out.trained: expected models trained with the tokenizer of {base!r}, "
                f"{models[base]['tokenizer']}, got {name!r}; name others, or leave ruled_out out"
            )
        tokens = [models[one]["training"]["tokens"] for one in (name, trained["control"])]
        if tokens[0] != tokens[1]:
            raise SettingsError(
                f"models.{name}.training.tokens: expected those of the control "
                f"{trained['control']!r}, {tokens[1]:,}, got {tokens[0]:,}; they are compared"
            )
        _learns_from(settings, name, trained["control"])


def _learns_from(settings: Mapping[str, Any], name: str, control: str) -> None:
    """Check that a model learns from the LM whose keys its datastore holds, all of them."""
    key = f"models.{name}.training.objective"
    objective = settings["models"][name]["training"].get("objective")
    if objective is None:
        return
    if objective["teacher"] != control:
        raise SettingsError(
            f"{key}.teacher: expected {control!r}, the control, which has read as many tokens, got "
            f"{objective['teacher']!r}"
        )
    if objective["datastore"] is None:
        if objective["name"] == "interpolated_loss":
            raise SettingsError(
                f"{key}.datastore: expected a datastore of {control!r}, whose p_kNN the loss mixes "
                "in, got null"
            )
        return
    datastore = settings["datastores"][objective["datastore"]]
    if datastore["model"] != objective["teacher"]:
        raise SettingsError(
            f"{key}.datastore: expected one of the teacher {objective['teacher']!r}, got "
            f"{objective['datastore']!r} of {datastore['model']!r}; neighbors of another model say "
            "nothing of the teacher's kNN-LM"
        )
    if datastore["share"] < 1 or datastore["corpus"] != settings["models"][name]["corpus"]:
        raise SettingsError(
            f"{key}.datastore: expected every position of the text that {name!r} is trained on "
            f"(share 1 of {settings['models'][name]['corpus']!r}), got {objective['datastore']!r} "
            f"with a share of {datastore['share']} of {datastore['corpus']!r}"
        )
