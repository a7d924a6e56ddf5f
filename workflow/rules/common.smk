# Settings and small functions for the rules: scale and command line merged, checked before any
# job starts. No rules.

import os
from pathlib import Path

import yaml

from scripts.knnlm.lm.schedule import can_continue
from scripts.knnlm.runtime.fingerprint import fingerprint as fingerprint_of
from scripts.knnlm.runtime.settings import SettingsError, resolve
from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
LONGEST_PATH = 1  # priority of the jobs that most others wait for; 0 is the default

try:
    # Snakemake laid the command line over config.yaml; laid over the scale again, it wins there too.
    resolved = resolve(
        config,
        workflow.config_settings.overwrite_config,
        yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
    )
except SettingsError as error:
    raise WorkflowError(f"config: {error}")
config.clear()
config.update(resolved)
KNOWN_EXPERIMENTS = sorted(path.stem for path in (ROOT / "workflow/experiments").glob("*.smk"))
CACHE = os.environ.get("SNAKEMAKE_OUTPUT_CACHE")  # with --cache: docs/recovery.md
SHARED = bool(CACHE)
if SHARED and not Path(CACHE).is_dir():
    raise WorkflowError(
        f"SNAKEMAKE_OUTPUT_CACHE: expected a folder, got {CACHE!r}, which is none; "
        "make it (mkdir -p) or unset the variable, or jobs would fail at their end"
    )
CONDA = str(ROOT / f"envs/macondo{'' if config['scale'] == 'cpu' else '-gpu'}.yaml")


wildcard_constraints:
    corpus="|".join(config["corpora"]),
    model="|".join(config["models"]),
    datastore="|".join(config["datastores"]),
    index="|".join(config["indexes"]),
    split="train|validation|test",
    town="|".join(config["macondo"]["towns"]),
    fine_tuning="|".join(config["overspecification"]["fine_tunings"]),
    head="|".join(config["mlp_augmentation"]["heads"]),
    control="|".join(config["mlp_augmentation"]["controls"]),
    last_layers="|".join(config["softmax_bottleneck"]["last_layers"]),
    seed="[0-9]+",
    part="[0-9]+",


def fingerprint(script, *, threads=None, **used):
    """Return the params function of a rule: it changes with the code and settings that it uses.

    `used` names blocks of the config; its value is True for the whole block, or the wildcard that
    chooses an entry of it, as in models="model", or a function of the wildcards.
    """

    def of(wildcards):
        chosen = {"wildcards": dict(wildcards), "threads": config["threads"].get(threads)}
        for block, by in used.items():
            if callable(by):
                chosen[block] = by(wildcards)
            else:
                chosen[block] = config[block] if by is True else config[block][wildcards[by]]
        return fingerprint_of(ROOT, script, chosen)

    return of


def files_of_corpus(wildcards):
    """Return the files of a local corpus, so that an edited text is seen; others have none."""
    folder = config["corpora"][wildcards.corpus].get("path")
    return sorted(map(str, Path(folder).glob("*.txt"))) if folder else []


def minimum_tokens():
    """Return what windows and search need of each split."""
    window = 1 + max(model["context"] for model in config["models"].values())
    train = max(window, 1 + config["search"]["k"])
    return {"train": train, "validation": window, "test": window}


def trunk(wildcards):
    """Return the model whose stored state a longer training of the same settings continues from."""
    model = config["models"][wildcards.model]
    parent = model.get("extends")
    if parent and can_continue(config["models"][parent], model):
        return f"results/{config['run']}/models/{parent}/seed{wildcards.seed}"
    return []


def model_of_datastore(wildcards):
    """Return the folder of the model whose hidden states a datastore holds."""
    model = config["datastores"][wildcards.datastore]["model"]
    return f"results/{config['run']}/models/{model}/seed{wildcards.seed}"


def queries_of_datastore(wildcards):
    """Return the folder of the queries scored by the model of a datastore."""
    model = config["datastores"][wildcards.datastore]["model"]
    return f"results/{config['run']}/log_probs/{model}/seed{wildcards.seed}/{wildcards.split}"
