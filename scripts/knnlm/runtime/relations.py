"""Relations between settings of different blocks, checked before any job starts.

What the schema cannot say: that sizes fit together. Those of one experiment stand beside it, in
`knnlm/experiments/<name>/checks.py`. Standard library only: the Snakefile imports this module.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from knnlm.runtime.settings import SettingsError

Settings = Mapping[str, Any]
SHAPE = (  # what two models have in common if one can start from the weights of the other
    "tokenizer",
    "context",
    "layers",
    "width",
    "heads",
    "ffn_width",
    "activation",
    "tied_embeddings",
    "without_mlp",
)


def check_relations(settings: Settings) -> None:
    """Check what several shared blocks say together.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    _baseline(settings)
    for name, datastore in settings["datastores"].items():
        at_most_context(
            settings, f"datastores.{name}.stride", datastore["stride"], datastore["model"]
        )
    for name, model in settings["models"].items():
        _trained_on_its_tokens(settings, name, model)
        _starts_from_its_like(settings, name, model)
    for name, corpus in settings["corpora"].items():
        _part_of_a_whole(settings, name, corpus)
    for name, shares in settings["shares"].items():
        _shares(settings, name, shares)


def _part_of_a_whole(settings: Settings, name: str, corpus: Mapping[str, Any]) -> None:
    """Check that a corpus that is a part is one of a whole corpus."""
    whole = corpus.get("of")
    if whole is not None and settings["corpora"][whole]["source"] == "part":
        raise SettingsError(
            f"corpora.{name}.of: expected a corpus that is no part itself, got {whole!r}; name the "
            "whole, or choose another corpus at the top"
        )


def _shares(settings: Settings, name: str, shares: Sequence[float]) -> None:
    """Check that shares of a datastore ascend, and that it holds them."""
    own = settings["datastores"][name]["share"]
    if [*shares] != sorted(shares) or shares[-1] > own:
        raise SettingsError(
            f"shares.{name}: expected shares that ascend, up to that of the datastore, {own}, got "
            f"{[*shares]}; sort them, or raise datastores.{name}.share"
        )


def _baseline(settings: Settings) -> None:
    """Check that what most experiments compare with can be searched and compared."""
    baseline, k = settings["baseline"], settings["search"]["k"]
    if baseline["index"] not in baseline["indexes"]:
        raise SettingsError(
            f"baseline.index: expected one of baseline.indexes, {', '.join(baseline['indexes'])}, "
            f"got {baseline['index']!r}"
        )
    largest = max([*baseline["grid"]["k"], baseline["published"]["k"]])
    if largest > k:
        raise SettingsError(
            f"search.k: expected at least {largest}, the largest k of the baseline, got {k}; raise "
            "search.k or shorten baseline.grid.k"
        )
    name = settings["datastores"][baseline["datastore"]]["model"]
    model = settings["models"][name]
    at_most_context(settings, "queries.stride", settings["queries"]["stride"], name)
    if model["source"] == "pretrained" and len(settings["lm_seeds"]) > 1:
        raise SettingsError(
            f"lm_seeds: expected one seed, since the pretrained model {name!r} is the same for "
            f"all, got {settings['lm_seeds']}; intervals over them would have no width"
        )
    if baseline["control"] is not None:
        _control(settings, baseline["control"], name)


def _control(settings: Settings, control: Mapping[str, Any], name: str) -> None:
    """Check that the control can stand beside the baseline's LM."""
    unknown = [seed for seed in control["seeds"] if seed not in settings["lm_seeds"]]
    if unknown:
        raise SettingsError(
            f"baseline.control.seeds: expected some of lm_seeds, {settings['lm_seeds']}, got "
            f"{unknown[0]}; without an LM of that seed there is nothing to compare with"
        )
    its_name = settings["datastores"][control["datastore"]]["model"]
    model, its = settings["models"][name], settings["models"][its_name]
    if its["tokenizer"] != model["tokenizer"]:
        raise SettingsError(
            f"baseline.control.datastore: expected one of a model with the tokenizer of {name!r}, "
            f"{model['tokenizer']}, got {control['datastore']!r} of {its_name!r} with "
            f"{its['tokenizer']}; or set baseline.control to null for no control"
        )


def _trained_on_its_tokens(settings: Settings, name: str, model: Mapping[str, Any]) -> None:
    """Check that a model that continues another has that model's tokens."""
    parent = settings["models"].get(model.get("extends"))
    if parent is not None and parent["source"] != model["source"]:
        raise SettingsError(
            f"models.{name}.extends: expected a {model['source']} model, got "
            f"{model['extends']!r}, which is {parent['source']}"
        )


def _starts_from_its_like(settings: Settings, name: str, model: Mapping[str, Any]) -> None:
    """Check that the weights that a training starts from exist before it, and fit the model."""
    chain, key = [name], f"models.{name}.starts_from"
    while start := settings["models"][chain[-1]].get("starts_from"):
        if start in chain:
            raise SettingsError(
                f"{key}: expected a model whose own training does not start from this one, got "
                f"{' -> '.join([*chain, start])}; leave starts_from out of one of them, so that "
                "it starts from random weights"
            )
        chain.append(start)
    if len(chain) == 1:
        return
    start = settings["models"][chain[1]]
    if start["source"] != "trained":
        raise SettingsError(
            f"{key}: expected a trained model, got {chain[1]!r}, which is {start['source']}"
        )
    for shape in SHAPE:
        if start[shape] != model[shape]:
            raise SettingsError(
                f"{key}: expected a model with the {shape} of this one, {model[shape]!r}, got "
                f"{chain[1]!r} with {start[shape]!r}; let models.{name} extend {chain[1]}"
            )


def tokens_needed(settings: Settings, corpus: str, tokenizer: str) -> dict[str, dict[str, int]]:
    """Return the tokens that each split of a corpus must have, by the setting that asks for them.

    Args:
        settings: of the run.
        corpus: a name in `corpora`.
        tokenizer: a name in `tokenizers`, in whose tokens the corpus is.
    """
    models = {
        name: model for name, model in settings["models"].items() if model["tokenizer"] == tokenizer
    }
    windows = {f"models.{name}.context": 1 + model["context"] for name, model in models.items()}
    entries = {
        f"search.k in datastores.{name}": 1 + math.ceil(settings["search"]["k"] / store["share"])
        for name, store in settings["datastores"].items()
        if store["model"] in models and store["corpus"] == corpus
    }
    validated = {
        f"models.{name}.training.validation_tokens": model["training"]["validation_tokens"] or 0
        for name, model in models.items()
        if model.get("training", {}).get("early_stopping") and model["corpus"] == corpus
    }
    windows["a text"] = 1
    return {"train": windows | entries, "validation": windows | validated, "test": windows}


def tokens_of_shares(settings: Settings, corpus: str, tokenizer: str) -> dict[str, int]:
    """Return the tokens that train must have for k entries in the smallest searched shares.

    Apart from `tokens_needed`, as they follow from the experiments of the run, which change no
    token of a corpus.
    """
    searched = {settings[name].get("datastore") for name in settings["experiments"]}
    stores = {name: settings["datastores"][name] for name in settings["shares"].keys() & searched}
    return {
        f"search.k in shares.{name}": 1 + math.ceil(settings["search"]["k"] / shares[0])
        for name, shares in settings["shares"].items()
        if name in stores
        and stores[name]["corpus"] == corpus
        and settings["models"][stores[name]["model"]]["tokenizer"] == tokenizer
    }


def at_most_context(settings: Settings, key: str, stride: int, model: str) -> None:
    """Check that windows that move on by a stride leave no token out.

    Raises:
        SettingsError: naming the key.
    """
    context = settings["models"][model]["context"]
    if stride > context:
        raise SettingsError(
            f"{key}: expected at most the context of model {model!r}, {context} tokens, got "
            f"{stride}; a longer stride would leave tokens out"
        )
