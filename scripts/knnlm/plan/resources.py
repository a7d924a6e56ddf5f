"""What Snakemake asks a scheduler for; the Snakefile imports it in every job, so nothing heavy."""

import math
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from knnlm.plan.needs import Machine, Need, Settings, Wildcards, seconds
from knnlm.plan.sizes import INVERTED_FILES, UnknownModelError, neighbors

MEMORY_MARGIN, TIME_MARGIN, DISK_MARGIN = 1.5, 3.0, 2.0
LEAST_MB, LEAST_MINUTES, LEAST_DISK_MB = 1000, 10, 100
# Rules without a function of their own, which are short but may hold the neighbors of a split.
HOLD_NEIGHBORS = re.compile("evaluate_|explorer$|tune_interpolation$")
OF_RULE = "for_"  # begins the name of the function of a rule
ROOMS = sorted((Path(__file__).parents[1] / "experiments").glob("*/needs.py"))
NEEDS_OF_RULES: dict[str, Callable[[Settings, Wildcards], Need]] = {
    name.removeprefix(OF_RULE): function
    for module in ("plan.pipeline", *(f"experiments.{path.parent.name}.needs" for path in ROOMS))
    for name, function in vars(import_module(f"knnlm.{module}")).items()
    if name.startswith(OF_RULE)
}


def need_of(config: Settings, rule: str, wildcards: Wildcards) -> Need:
    """Return what a job of a rule needs; a rule without a function is short."""
    named = {"split": "test", "corpus": config["corpus"], **config["baseline"], **wildcards}
    if rule not in NEEDS_OF_RULES:
        return Need(memory=3 * neighbors(config, named) if HOLD_NEIGHBORS.match(rule) else 0)
    try:
        return NEEDS_OF_RULES[rule](config, dict(wildcards))
    except UnknownModelError as error:
        engine = config["indexes"].get(wildcards.get("index"), {}).get("engine")
        return Need(gpu=engine not in INVERTED_FILES, unknown=str(error))


def resources(
    config: Settings, machine: Machine, *, longest: int | None, gpus: Mapping[str, int]
) -> dict[str, Callable[..., int]]:
    """Return mem_mb, runtime, disk_mb and gpu of any rule, as functions that Snakemake calls.

    Minutes are those on the machine, and `longest` at most: a longer job goes on in a retry.
    `gpus` are those of a job of a rule, where a profile asks for several.
    """

    def mem_mb(wildcards: Any, attempt: int, rulename: str) -> int:
        memory = MEMORY_MARGIN * need_of(config, rulename, wildcards).process_memory(config)
        return attempt * max(LEAST_MB, math.ceil(memory / 1e8) * 100)

    def runtime(wildcards: Any, threads: int, attempt: int, rulename: str) -> int:
        need, shared = need_of(config, rulename, wildcards), gpus.get(rulename, 1)
        planned = TIME_MARGIN * seconds(machine, need, threads=threads, gpus=shared)
        minutes = attempt * max(LEAST_MINUTES, math.ceil(planned / 60))
        return minutes if longest is None else min(minutes, longest)

    def disk_mb(wildcards: Any, rulename: str) -> int:
        disk = DISK_MARGIN * need_of(config, rulename, wildcards).disk
        return max(LEAST_DISK_MB, math.ceil(disk / 1e6))

    def gpu(wildcards: Any, rulename: str) -> int:
        return int(need_of(config, rulename, wildcards).on_gpu(config))

    return {"mem_mb": mem_mb, "runtime": runtime, "disk_mb": disk_mb, "gpu": gpu}
