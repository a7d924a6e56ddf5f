"""Tell what a run will cost: jobs, bytes, FLOPs and hours of every rule."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.plan.report import make_plan
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    terminal = os.dup(1)
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    make_plan(
        output=Path(snakemake.params.plan),
        config=snakemake.params.config,
        snakefile=Path(snakemake.params.snakefile),
        this=Path(snakemake.input.this),
        others=Path(snakemake.input.others),
        hardware=snakemake.resources.hardware,
        limits={
            "mem_mb": snakemake.resources.get("limit_mem_mb"),
            "disk_mb": snakemake.resources.get("limit_disk_mb"),
            "runtime": snakemake.resources.get("limit_runtime"),
            "gpu": snakemake.resources.get("limit_gpu"),
        },
        asked=snakemake.params.asked,
        target=snakemake.params.target,
        terminal=terminal,
    )
