"""What Snakemake asks a scheduler for: memory, minutes, disk and GPUs of a job.

From the same functions as `snakemake plan`; a retry asks for more. Standard library only: the
Snakefile imports this module, in every job.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from knnlm.plan.needs import Config, Machine, Need, Wildcards
from knnlm.plan.shapes import UnknownShapeError
from knnlm.plan.sizes import neighbors
from knnlm.plan.units import INVERTED_FILES

MEMORY_MARGIN, TIME_MARGIN, DISK_MARGIN = 1.5, 3.0, 2.0
LEAST_MB, LEAST_MINUTES, LEAST_DISK_MB = 1000, 10, 100
FOLDERS = Path(__file__).parents[1] / "experiments"
READERS = ("evaluate_", "explorer")  # rules that may read neighbors, and are short otherwise
MODULES = ["knnlm.plan.pipeline"]
MODULES += [f"knnlm.experiments.{p.parent.name}.needs" for p in sorted(FOLDERS.glob("*/needs.py"))]


def _functions() -> Iterator[tuple[str, Callable[[Config, Wildcards], Need]]]:
    """Yield the functions named as rules, of the pipeline and of every experiment."""
    for module in map(import_module, MODULES):
        for name, found in vars(module).items():
            if name[0] != "_" and getattr(found, "__module__", "") == module.__name__:
                yield name, found


NEEDS_OF_RULES = dict(_functions())


def need_of(config: Config, rule: str, wildcards: Wildcards) -> Need:
    """Return what a job of a rule needs; a rule without a function is short."""
    named = {"split": "test", "corpus": config["corpus"], **config["baseline"], **wildcards}
    if rule not in NEEDS_OF_RULES:
        return Need(memory=3 * neighbors(config, named) if rule.startswith(READERS) else 0)
    try:
        return NEEDS_OF_RULES[rule](config, dict(wildcards))
    except UnknownShapeError as error:
        engine = config["indexes"].get(wildcards.get("index"), {}).get("engine")
        return Need(gpu=engine not in INVERTED_FILES, unknown=str(error))


def resources(
    config: Config, machine: Machine, *, longest: int | None, gpus: Mapping[str, int]
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
        seconds = TIME_MARGIN * machine.seconds(need, threads=threads, gpus=shared)
        minutes = attempt * max(LEAST_MINUTES, math.ceil(seconds / 60))
        return minutes if longest is None else min(minutes, longest)

    def disk_mb(wildcards: Any, rulename: str) -> int:
        disk = DISK_MARGIN * need_of(config, rulename, wildcards).disk
        return max(LEAST_DISK_MB, math.ceil(disk / 1e6))

    def gpu(wildcards: Any, rulename: str) -> int:
        return int(need_of(config, rulename, wildcards).on_gpu(config))

    return {"mem_mb": mem_mb, "runtime": runtime, "disk_mb": disk_mb, "gpu": gpu}
