"""Tell what a run will cost: jobs, bytes, FLOPs and hours of every rule."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from knnlm.plan.table import make_plan
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    terminal = os.dup(1)
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    text = make_plan(
        Path(snakemake.params.plan),
        snakemake.params.config,
        snakefile=Path(snakemake.params.snakefile),
        hardware=yaml.safe_load(Path(snakemake.input.hardware).read_text()),
        resources=dict(snakemake.resources.items()),
        asked=snakemake.params.asked,
    )
    with open(terminal, "w", encoding="utf-8", closefd=False) as out:
        print(text, file=out)
