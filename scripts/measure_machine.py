"""Measure the rates of this machine, for `snakemake plan`."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.plan.machine import measure_machine
from knnlm.runtime.artifacts import save_json
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    machine = Path(snakemake.output.machine)
    save_json(machine, measure_machine(machine.parent))
