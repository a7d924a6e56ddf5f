"""Settings: the config with the scale laid over it, validated, before any job starts.

The command line wins over the scale, the scale over the defaults. Standard library and
jsonschema only: the Snakefile imports this module, in every job.
"""

import copy
from collections.abc import Mapping
from typing import Any

import jsonschema

KINDS = ("name", "source", "engine")
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


class SettingsError(ValueError):
    """A setting that is unknown, of the wrong type, out of range, or names nothing."""


def deep_merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return `low` with `high` laid over it: mappings merge, everything else is replaced.

    A mapping of another kind, whose `name`, `source` or `engine` differs, is replaced whole: the
    momentum of one optimizer is no setting of another.
    """
    merged = copy.deepcopy(dict(low))
    for key, value in high.items():
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        if both and all(value.get(kind, old.get(kind)) == old.get(kind) for kind in KINDS):
            merged[key] = deep_merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def resolve(
    config: Mapping[str, Any], command_line: Mapping[str, Any], schema: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a run: defaults, then the scale, then the command line.

    Args:
        config: config.yaml, with or without the command line laid over it.
        command_line: what `--configfile` and `--config` gave.
        schema: JSON schema of the merged settings.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    given = deep_merge(config, command_line)
    scale, scales = given.get("scale"), given.get("scales", {})
    if scale not in scales:
        raise SettingsError(f"unknown scale {scale!r}; known scales: {', '.join(scales)}")
    settings = deep_merge(deep_merge(given, scales[scale]), command_line)
    del settings["scales"]
    settings["run"] = settings.get("run") or f"{settings['scale']}-{settings['corpus']}"
    validate(settings, schema)
    settings["models"] = {name: _extended(name, settings["models"]) for name in settings["models"]}
    validate(
        settings,
        {"properties": {"models": {"additionalProperties": schema["$defs"]["whole_model"]}}},
    )
    settings["macondo"]["towns"] = _towns(settings["macondo"])
    check_names(settings)
    return settings


def validate(settings: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Check settings against the schema and report the first problem in one sentence.

    Raises:
        SettingsError: naming the key by its path, what was expected and what was given.
    """
    errors = sorted(
        jsonschema.Draft202012Validator(schema).iter_errors(settings), key=lambda e: str(e.path)
    )
    if errors:
        raise SettingsError(_sentence(jsonschema.exceptions.best_match(errors)))


def _sentence(error: jsonschema.ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "the config"
    description = error.schema.get("description", "") if isinstance(error.schema, Mapping) else ""
    meaning = f" ({description})" if description else ""
    given = repr(error.instance)
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known))
        return f"{where}: unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{where}: missing key {', '.join(map(repr, missing))}{meaning}"
    if error.validator == "type":
        hint = ""
        if isinstance(error.instance, str) and error.validator_value != "string":
            hint = (
                "; write floats as 1.0e-3, and pass nested values by an overlay file with "
                "--configfile: on the command line they arrive as strings"
            )
        expected = error.validator_value
        expected = " or ".join(expected) if isinstance(expected, list) else expected
        return f"{where}{meaning}: expected {expected}, got {given}{hint}"
    if error.validator == "enum":
        return f"{where}{meaning}: expected one of {error.validator_value}, got {given}"
    if error.validator in BOUNDS:
        bound = f"{BOUNDS[error.validator]} {error.validator_value}"
        return f"{where}{meaning}: expected a number {bound}, got {given}"
    return f"{where}{meaning}: {error.message}"


def _extended(name: str, models: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's settings with those of the model that it extends below them."""
    model = dict(models[name])
    parent = model.get("extends")
    if parent is None:
        return model
    if parent not in models or "extends" in models[parent]:
        raise SettingsError(
            f"models.{name}.extends: expected a model that extends no other, got {parent!r}; "
            f"known models: {', '.join(sorted(models))}"
        )
    return deep_merge(models[parent], model)


def _towns(macondo: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the whole settings of each town: what they share, with what differs laid over it."""
    shared = {key: value for key, value in macondo.items() if key != "towns"}
    return {name: deep_merge(shared, town) for name, town in macondo["towns"].items()}


def check_names(settings: Mapping[str, Any]) -> None:
    """Check that every name that one block gives another exists, and that sizes fit together.

    Raises:
        SettingsError: naming the key, the unknown name and the known ones.
    """
    _known(settings, "corpus", settings["corpus"], "corpora")
    for name, datastore in settings["datastores"].items():
        _known(settings, f"datastores.{name}.model", datastore["model"], "models")
        _at_most(settings, f"datastores.{name}.stride", datastore["stride"], datastore["model"])
    experiment = settings["knn_perplexity"]
    _known(settings, "knn_perplexity.datastore", experiment["datastore"], "datastores")
    _known(settings, "knn_perplexity.control", experiment["control"], "models")
    for index in experiment["indexes"]:
        _known(settings, "knn_perplexity.indexes", index, "indexes")
    if experiment["index"] not in experiment["indexes"]:
        raise SettingsError(
            f"knn_perplexity.index: expected one of knn_perplexity.indexes, "
            f"{', '.join(experiment['indexes'])}, got {experiment['index']!r}"
        )
    model = settings["datastores"][experiment["datastore"]]["model"]
    _at_most(settings, "queries.stride", settings["queries"]["stride"], model)
    _whole_windows(settings, model)
    _projected_heads(settings, model)
    _known_in(settings, "overspecification", "compare", "fine_tunings")
    _known_in(settings, "conversational", "compare", "fine_tunings", of="overspecification")
    for name, fine_tuning in settings["overspecification"]["fine_tunings"].items():
        _known_town(settings, f"overspecification.fine_tunings.{name}", fine_tuning)
    _equal_towns(settings)
    _known_town(settings, "mlp_hurdle.macondo", settings["mlp_hurdle"]["macondo"])
    k_max = max([*experiment["grid"]["k"], experiment["published"]["k"]])
    if k_max > settings["search"]["k"]:
        raise SettingsError(
            f"search.k: expected at least {k_max}, the largest k of knn_perplexity, got "
            f"{settings['search']['k']}; raise search.k or shorten knn_perplexity.grid.k"
        )


def _known(settings: Mapping[str, Any], key: str, name: str, block: str) -> None:
    if name not in settings[block]:
        raise SettingsError(
            f"{key}: unknown name {name!r}; known {block}: {', '.join(sorted(settings[block]))}"
        )


def _known_in(
    settings: Mapping[str, Any], block: str, chosen: str, names: str, *, of: str | None = None
) -> None:
    """Check that the chosen names of a block are among those of the same one, or of another."""
    known = settings[of or block][names]
    for name in settings[block][chosen]:
        if name not in known:
            raise SettingsError(
                f"{block}.{chosen}: unknown name {name!r}; known {of or block}.{names}: "
                f"{', '.join(sorted(known))}"
            )


def _known_town(settings: Mapping[str, Any], key: str, block: Mapping[str, Any]) -> None:
    towns = settings["macondo"]["towns"]
    if block["town"] not in towns:
        raise SettingsError(
            f"{key}.town: unknown name {block['town']!r}; known macondo.towns: "
            f"{', '.join(sorted(towns))}"
        )


def _equal_towns(settings: Mapping[str, Any]) -> None:
    """Check that models are compared on families of the same sizes, with one level of chance."""
    experiment, towns = settings["overspecification"], settings["macondo"]["towns"]
    chosen = [experiment["fine_tunings"][name]["town"] for name in experiment["compare"]]
    sizes = {
        name: (towns[name]["villagers_per_count"], towns[name]["max_children"]) for name in chosen
    }
    if len(set(sizes.values())) > 1:
        raise SettingsError(
            "overspecification.compare: expected towns of one size, got (villagers_per_count, "
            f"max_children) of {', '.join(f'{name} {size}' for name, size in sizes.items())}; "
            "change the sizes of macondo, or compare the models in two runs"
        )


def _projected_heads(settings: Mapping[str, Any], model: str) -> None:
    """Check that models with the heads exist, and that the LM's own is cut to fewer ranks."""
    experiment, width = settings["softmax_bottleneck"], settings["models"][model]["width"]
    for name in experiment["heads"]:
        _known(settings, "softmax_bottleneck.heads", name, "models")
    if max(experiment["ranks"]) >= width:
        raise SettingsError(
            f"softmax_bottleneck.ranks: expected ranks below {width}, the width of model "
            f"{model!r}, got {max(experiment['ranks'])}; the whole head is always a row"
        )


def _whole_windows(settings: Mapping[str, Any], model: str) -> None:
    """Check that a batch of pairs is as many whole windows of text for the controls."""
    training, context = settings["mlp_replacement"], settings["models"][model]["context"]
    if training["batch_size"] % (training["accumulation"] * context):
        raise SettingsError(
            f"mlp_replacement.batch_size: expected a multiple of {training['accumulation']} x "
            f"{context}, accumulation x the context of model {model!r}, got "
            f"{training['batch_size']}; the controls read whole windows"
        )


def _at_most(settings: Mapping[str, Any], key: str, stride: int, model: str) -> None:
    context = settings["models"][model]["context"]
    if stride > context:
        raise SettingsError(
            f"{key}: expected at most the context of model {model!r}, {context} tokens, got "
            f"{stride}; a longer stride would leave tokens out"
        )
