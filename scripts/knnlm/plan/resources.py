"""What Snakemake asks a scheduler for: memory, minutes, disk and GPUs of a job.

From the same model as `snakemake plan`; a retry asks for more. Standard library only: the
Snakefile imports this module, in every job.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import knnlm.plan.experiments
import knnlm.plan.retrieval
import knnlm.plan.training  # noqa: F401  (all register their models)
from knnlm.plan.needs import MODELS, Config, Need
from knnlm.plan.work import Machine

MB = 1e6
MEMORY_MARGIN, TIME_MARGIN, DISK_MARGIN = 1.5, 3.0, 1.2
LEAST_MB, LEAST_MINUTES = 1000, 10
LESS_THAN_A_SECOND = Need()  # of a rule that no model describes: all are short


def need_of(config: Config, rule: str, wildcards: Mapping[str, str]) -> Need:
    """Return what a job of a rule needs."""
    model = MODELS.get(rule)
    return model(config, dict(wildcards)) if model else LESS_THAN_A_SECOND


def threads_of(config: Config, need: Need) -> int:
    """Return the compute threads of a job."""
    return config["threads"][need.threads] if need.threads else 1


def gpus_of(config: Config, need: Need, asked: int = 1) -> int:
    """Return the GPUs of a job: one at the scales that have GPUs, or `asked` if it can share."""
    if not need.on_gpu(config):
        return 0
    return asked if need.shared else 1


def seconds_of(config: Config, need: Need, machine: Machine, *, gpus: int = 1) -> float:
    """Return the estimated seconds of a job on a machine, with the GPUs that were asked for it."""
    threads = threads_of(config, need)
    used = (gpus if need.shared else 1) if need.gpu else 0
    return machine.seconds(need.work, threads=threads, gpus=used, half=need.half)


def resources(
    config: Config,
    machine: Machine,
    *,
    longest: int | None = None,
    gpus: Mapping[str, int] | None = None,
) -> dict[str, Callable[..., int]]:
    """Return the resources of any rule, as functions that Snakemake calls with its name.

    Memory and time grow with each attempt, so that a job that was too large for what it asked
    for is asked for again with more.

    Args:
        config: the merged settings; they must stay as they are.
        machine: the hardware on which the minutes are estimated.
        longest: minutes that a scheduler allows at most; a longer job goes on in a retry.
        gpus: of a job of a rule, where a profile asks for several.

    Returns:
        mem_mb, runtime (minutes), disk_mb (outputs and what lies beside them meanwhile) and gpu
        (1 where the scale has one and the rule uses it).
    """

    @cache
    def known(rule: str, wildcards: str) -> Need:
        return need_of(config, rule, json.loads(wildcards))

    def need(rule: str, wildcards: Any) -> Need:
        return known(rule, json.dumps(dict(wildcards)))

    def mem_mb(wildcards: Any, attempt: int, rulename: str) -> int:
        one = need(rulename, wildcards)
        memory = MEMORY_MARGIN * one.process_memory(on_gpu=one.on_gpu(config)) / MB
        return attempt * max(LEAST_MB, math.ceil(memory / 100) * 100)

    def runtime(wildcards: Any, attempt: int, rulename: str) -> int:
        one, asked = need(rulename, wildcards), (gpus or {}).get(rulename, 1)
        seconds = TIME_MARGIN * seconds_of(config, one, machine, gpus=asked)
        minutes = attempt * max(LEAST_MINUTES, math.ceil(seconds / 60))
        return minutes if longest is None else min(minutes, longest)

    def disk_mb(wildcards: Any, rulename: str) -> int:
        one = need(rulename, wildcards)
        return max(100, math.ceil(DISK_MARGIN * (one.disk + one.scratch) / MB))

    def gpu(wildcards: Any, rulename: str) -> int:
        return gpus_of(config, need(rulename, wildcards))

    return {"mem_mb": mem_mb, "runtime": runtime, "disk_mb": disk_mb, "gpu": gpu}
