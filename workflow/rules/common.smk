# The settings of a run, checked before any job starts, and what rules make of them. No rules.

import functools
import importlib
import os
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "scripts"))  # the library, for this file and the others

from knnlm.lm.pretrained_folder import check_pretrained_folder
from knnlm.plan.texts import require_bytes
from knnlm.runtime.experiments import read_experiments, read_yaml, with_experiments
from knnlm.runtime.fingerprint import code_of, fingerprint as fingerprint_of
from knnlm.runtime.relations import check_relations
from knnlm.runtime.settings import SettingsError, deep_merge, resolve
from snakemake.exceptions import WorkflowError

LONGEST_PATH = 1  # priority of the jobs that most others wait for; 0 is the default


def settings_of_run():
    """Return the merged settings and all experiments, after every check that needs no job."""
    schema = read_yaml(ROOT / "workflow/schemas/config.schema.yaml")
    shared = read_yaml(ROOT / "config.yaml")
    experiments = read_experiments(ROOT)
    defaults, schema = with_experiments(shared, schema, experiments.values())
    # Snakemake laid the command line over config.yaml; laid over the scale again, it wins there too.
    command_line = workflow.config_settings.overwrite_config
    settings = resolve(deep_merge(defaults, config), command_line, schema)
    check_relations(settings)
    require_bytes(settings)
    for name, model in settings["models"].items():
        if model["source"] == "pretrained" and Path(model["model"]).is_dir():
            own = Path(settings["tokenizers"][model["tokenizer"]].get("model", ""))
            check_pretrained_folder(
                Path(model["model"]),
                key=f"models.{name}.model",
                context=model["context"],
                tokenizer=own if (own / "tokenizer.json").is_file() else None,
            )
    for name in settings["experiments"]:
        if (ROOT / f"scripts/knnlm/experiments/{name}/checks.py").is_file():
            importlib.import_module(f"knnlm.experiments.{name}.checks").check(settings)
    return settings, experiments


try:
    resolved, EXPERIMENTS = settings_of_run()
except ValueError as error:
    raise WorkflowError(f"config: {error}")
config.clear()
config.update(resolved)
RESULTS = f"results/{config['run']}"
CACHE = os.environ.get("SNAKEMAKE_OUTPUT_CACHE")  # with --cache: docs/recovery.md
SHARED = bool(CACHE)
if SHARED and not Path(CACHE).is_dir():
    raise WorkflowError(
        f"SNAKEMAKE_OUTPUT_CACHE: expected a folder, got {CACHE!r}, which is none; "
        "make it (mkdir -p) or unset the variable, or jobs would fail at their end"
    )
CONDA = str(ROOT / f"envs/macondo{'' if config['scale'] == 'cpu' else '-gpu'}.yaml")
code_once = functools.cache(code_of)  # all jobs of a rule, and many rules, run the same code


def names_in(block, **having):
    """Return the pattern of the names in a block of the config, of entries with some values."""
    wanted = [
        name
        for name, entry in config[block].items()
        if all(entry[key] in values for key, values in having.items())
    ]
    return "|".join(wanted) or "(?!)"  # which matches nothing


wildcard_constraints:
    corpus=names_in("corpora"),
    tokenizer=names_in("tokenizers"),
    model=names_in("models"),
    datastore=names_in("datastores"),
    index=names_in("indexes"),
    fine_tuning=names_in("fine_tunings"),
    town="|".join(config["macondo"]["towns"]),
    experiment="|".join(EXPERIMENTS),
    split="train|validation|test",
    seed="[0-9]+",
    part="[0-9]+",


def fingerprint(script, *, imports=None, threads=None, **used):
    """Return the params function of a rule: it changes with the code and settings that it uses.

    `imports` is the module that a script imports by name if it serves several rules. `used` names
    blocks of the config; its value is True for the whole block, or the wildcard that chooses an
    entry of it, as in models="model", or a function of the wildcards.
    """

    def of(wildcards):
        chosen = {"wildcards": dict(wildcards), "threads": config["threads"].get(threads)}
        for block, by in used.items():
            if callable(by):
                chosen[block] = by(wildcards)
            else:
                chosen[block] = config[block] if by is True else config[block][wildcards[by]]
        modules = [imports.format(**dict(wildcards))] if imports else []
        return fingerprint_of(code_once(ROOT, script, *modules), chosen)

    return of
