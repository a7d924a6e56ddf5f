"""Tell what a run will cost: jobs, bytes, FLOPs and hours of every rule."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.plan.needs import machine_of
from knnlm.plan.table import make_plan
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    terminal = os.dup(1)
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    given = snakemake.resources.items()
    text = make_plan(
        Path(snakemake.params.plan),
        snakemake.params.config,
        Path(snakemake.params.snakefile),
        snakemake.params.target,
        machine_of(snakemake.params.hardware, snakemake.resources.hardware),
        {name.removeprefix("limit_"): limit for name, limit in given if name.startswith("limit_")},
        snakemake.params.asked,
    )
    with open(terminal, "w", encoding="utf-8", closefd=False) as out:
        print(text, file=out)
