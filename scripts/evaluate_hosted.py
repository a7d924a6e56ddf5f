"""Collect the losses and answers of a hosted model over seeds and epochs."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import write_table
from knnlm.experiments.conversational_hosted.table import evaluate_hosted
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table, curves = evaluate_hosted(
        settings=snakemake.params.settings,
        seeds=snakemake.params.seeds,
        conversations=list(map(Path, snakemake.input.conversations)),
        fine_tuned=list(map(Path, snakemake.input.fine_tuned)),
    )
    write_table(Path(snakemake.output.table), table)
    write_table(Path(snakemake.output.curves), curves)
