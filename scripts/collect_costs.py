"""Gather the benchmark files of a run into one table."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.cost import collect_costs
from knnlm.evidence.tables import write_csv
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    write_csv(
        Path(snakemake.output.cost),
        collect_costs(Path(snakemake.params.benchmarks), snakemake.params.counted_for),
        float_format="%.2f",
    )
