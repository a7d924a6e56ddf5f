"""What the settings of trained_embeddings must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.experiments.trained_embeddings.sizes import FIRST, LOSS, Size, training_bytes
from knnlm.plan.sizes import UnknownModelError, model_size
from knnlm.runtime.settings import SettingsError

SITES = {"att": "ffn_input_after_layer_norm", "ffn": "output_after_layer_norm"}
GIB = 1 << 30


def check(settings: Mapping[str, Any]) -> None:
    """Check the keys of both datastores, the order of the sizes, and that the largest one fits.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    own, base = settings["trained_embeddings"], settings["baseline"]["datastore"]
    stores = {"att": ("baseline.datastore", base)}
    stores["ffn"] = ("trained_embeddings.ffn_datastore", own["ffn_datastore"])
    model = settings["datastores"][base]["model"]
    for site, (key, name) in stores.items():
        store = settings["datastores"][name]
        if (store["site"], store["model"]) != (SITES[site], model):
            raise SettingsError(
                f"{key}: expected a datastore of model {model!r} at {SITES[site]} for the "
                f"experiment trained_embeddings, got {name!r} of {store['model']!r} at "
                f"{store['site']}; name another, or leave the experiment out"
            )
    for site, sizes in own["vectors"].items():
        if sizes[0] != FIRST:
            raise SettingsError(
                f"trained_embeddings.vectors.{site}: expected {FIRST!r} as the first, with which "
                f"the others are compared and from which {LOSS!r} is known, got {sizes[0]!r}"
            )
    _largest_fits(own, settings, model)


def _largest_fits(own: Mapping[str, Any], settings: Mapping[str, Any], model: str) -> None:
    """Check that the training of the most vectors a word stays within the memory for it."""
    try:
        size = model_size(settings, model)
    except UnknownModelError:  # its shape is not known before it is fetched
        return
    for site, names in own["vectors"].items():
        vectors = max(Size.named(name).vectors for name in names)
        need = training_bytes(own["training"], size, vectors) / GIB
        if need > own["memory_gib"]:
            raise SettingsError(
                f"trained_embeddings.vectors.{site}: expected sizes whose training takes at most "
                f"{own['memory_gib']:g} GiB (trained_embeddings.memory_gib), got {vectors} vectors "
                f"a word with {need:,.1f} GiB; take fewer, raise training.accumulation, or raise "
                "memory_gib where the machine has more"
            )
