"""What the datastore costs to build and to search, and the fine-tuning beside it: counted FLOPs."""

from collections.abc import Mapping, Sequence
from typing import Any

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.cost import flops_of_key, flops_of_model, flops_of_search
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved
from knnlm.lm.anatomy import context
from knnlm.lm.model import load_model
from knnlm.runtime.artifacts import read_manifest
from knnlm.runtime.places import places


def cost_rows(
    inputs: Inputs, settings: Mapping[str, Any], searched: Sequence[Retrieved], *, fine_tuned: str
) -> list[Row]:
    """Return the FLOPs of building and searching the datastore, and of the fine-tuning.

    Windows of a datastore overlap by context - stride tokens, which are read again. Each position
    of validation and test is searched once; scoring them costs every method the same, and what
    tuning costs is left out for all.

    Args:
        inputs: models and datastore.
        settings: baseline, datastores, indexes and domain_adaptation.
        searched: the positions of each split.
        fine_tuned: the name of the model that was chosen.
    """
    names, baseline = searched[0].scored.names, settings["baseline"]
    models = places(inputs["models"], kind="model", by=("model", "seed"))
    lm = load_model(models[names["model"], names["seed"]])
    store = settings["datastores"][settings["domain_adaptation"]["datastore"]]
    (folder,) = inputs["datastore"]
    size = read_manifest(folder, kind="datastore")["contents"]
    size = {"n_entries": size["n_entries"], "dim": size["dim"]}
    index = settings["indexes"][baseline["index"]]
    query = flops_of_search(index, **size, k=searched[0].tuned.point.k)
    building = size["n_entries"] * flops_of_key(lm) * max(1, context(lm) / store["stride"])
    searching = query * sum(len(found.scored.places) for found in searched)
    tokens = read_manifest(models[fine_tuned, names["seed"]], kind="model")["contents"]["tokens"]
    training = flops_of_model(lm).training * tokens
    named = {**names, "split": "all", "unit": "FLOPs", "n": 1}
    retrieval = {**named, "method": KNN_LM, "setting": baseline["index"]}
    control = {**named, "method": "fine_tuned", "setting": fine_tuned}
    share = 100 * training / (building + searching)
    return [
        retrieval | {"metric": "building_flops", "value": building},
        retrieval | {"metric": "searching_flops", "value": searching},
        control | {"metric": "training_flops", "value": training, "n": tokens},
        control | {"metric": "share_of_retrieval_flops", "value": share, "unit": "percent"},
    ]
