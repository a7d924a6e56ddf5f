"""Make the tables of one experiment from what its rule names."""

from importlib import import_module
from typing import TYPE_CHECKING

from knnlm.experiments.shared.job import paths_of, write_tables
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    # before `begin`, which sets the threads of what is imported
    table = import_module(f"knnlm.experiments.{snakemake.params.experiment}.table")
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    tables = table.evaluate(paths_of(snakemake.input.items()), snakemake.params.settings)
    write_tables(tables, snakemake.output.items())
