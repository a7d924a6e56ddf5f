"""Settings: the config with the scale laid over it, validated, before any job starts.

The command line wins over the scale, the scale over the defaults. Standard library and
jsonschema only: the Snakefile imports this module, in every job.
"""

import copy
from collections.abc import Iterator, Mapping
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
    defaults: Mapping[str, Any], command_line: Mapping[str, Any], schema: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a run: defaults, then the scale, then the command line.

    Every entry of the result is whole: what it extends is merged in, and its corpus and tokenizer
    are named.

    Args:
        defaults: config.yaml and the blocks of the experiments.
        command_line: what `--configfile` and `--config` gave.
        schema: JSON schema of the merged settings. Beside the usual keywords, `names: block` says
            that a text is a name below that block.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    given = deep_merge(defaults, command_line)
    scale, scales = given.get("scale"), given.get("scales", {})
    if scale not in scales:
        raise SettingsError(f"unknown scale {scale!r}; known scales: {', '.join(scales)}")
    settings = deep_merge(deep_merge(given, scales[scale]), command_line)
    del settings["scales"]
    settings["run"] = settings.get("run") or f"{settings['scale']}-{settings['corpus']}"
    if settings.get("experiments") is None:
        settings["experiments"] = _all_experiments(settings, schema)
    validate(settings, schema)
    for block in ("models", "datastores"):
        settings[block] = {name: _extended(settings, block, name) for name in settings[block]}
    _name_what_is_left_out(settings)
    validate(settings, schema)
    whole = {
        block: {"additionalProperties": {"$ref": f"#/$defs/{of}"}}
        for block, of in {"models": "whole_model", "datastores": "whole_datastore"}.items()
    }
    validate(settings, {"properties": whole, "$defs": schema["$defs"]})
    settings["macondo"]["towns"] = _towns(settings["macondo"])
    return settings


def _all_experiments(settings: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return the names of all experiments but those that cost money and so ask to confirm."""
    names = schema["properties"]["experiments"]["items"].get("enum", [])
    return [name for name in names if "confirm" not in settings[name]]


def validate(settings: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Check settings against the schema and report the first problem in one sentence.

    Raises:
        SettingsError: naming the key by its path, what was expected and what was given.
    """

    def known_name(
        validator: Any, block: str, instance: Any, _: Mapping[str, Any]
    ) -> Iterator[jsonschema.ValidationError]:
        if isinstance(instance, str) and instance not in (known := at(settings, block)):
            listed = ", ".join(sorted(known))
            yield jsonschema.ValidationError(f"unknown name {instance!r}; known {block}: {listed}")

    draft = jsonschema.Draft202012Validator
    validator = jsonschema.validators.extend(draft, {"names": known_name})(schema)
    errors = sorted(validator.iter_errors(settings), key=lambda error: str(error.path))
    if errors:
        raise SettingsError(_sentence(jsonschema.exceptions.best_match(errors)))


def at(settings: Mapping[str, Any], path: str) -> Any:
    """Return the block at a dotted path, such as macondo.towns."""
    for key in path.split("."):
        settings = settings[key]
    return settings


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
    if error.validator == "names":
        return f"{where}: {error.message}"
    if error.validator == "uniqueItems":
        twice = next(one for one in error.instance if error.instance.count(one) > 1)
        return f"{where}: expected each value once, got {twice!r} more than once"
    if error.validator in BOUNDS:
        bound = f"{BOUNDS[error.validator]} {error.validator_value}"
        return f"{where}{meaning}: expected a number {bound}, got {given}"
    return f"{where}{meaning}: {error.message}"


def _extended(settings: Mapping[str, Any], block: str, name: str) -> dict[str, Any]:
    """Return an entry with the settings of the one that it extends below its own.

    A datastore may extend `baseline`: the datastore of the block `baseline`, whatever its name is.
    """
    entries, chain = settings[block], [name]
    while parent := entries[chain[-1]].get("extends"):
        if parent == "baseline" and block == "datastores":
            parent = settings["baseline"]["datastore"]
        if parent not in entries or parent in chain:
            raise SettingsError(
                f"{block}.{chain[-1]}.extends: expected one of {block} that does not extend this "
                f"one, got {parent!r}; known {block}: {', '.join(sorted(entries))}"
            )
        chain.append(parent)
    entry = dict(entries[chain.pop()])
    while chain:
        entry = deep_merge(entry, entries[chain.pop()])
    return entry


def _name_what_is_left_out(settings: dict[str, Any]) -> None:
    """Give each entry the subject as its corpus, and each pretrained model its own tokenizer.

    A datastore has all entries and is searched for all queries, and distance is squared L2, where
    nothing else is said.
    """
    for block in ("tokenizers", "models", "datastores"):
        for entry in settings[block].values():
            entry.setdefault("corpus", settings["corpus"])
    for corpus in settings["corpora"].values():
        if corpus["source"] == "part":
            corpus.setdefault("of", settings["corpus"])
    for datastore in settings["datastores"].values():
        datastore.setdefault("share", 1.0)
        datastore.setdefault("queries", None)
    for index in settings["indexes"].values():
        index.setdefault("metric", "l2")
    for name, model in settings["models"].items():
        if model.get("source") == "pretrained" and "tokenizer" not in model:
            model["tokenizer"] = name
            settings["tokenizers"].setdefault(
                name,
                {"source": "pretrained", "model": model.get("model"), "corpus": model["corpus"]},
            )


def _towns(macondo: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the whole settings of each town: what they share, with what differs laid over it."""
    shared = {key: value for key, value in macondo.items() if key != "towns"}
    return {name: deep_merge(shared, town) for name, town in macondo["towns"].items()}
