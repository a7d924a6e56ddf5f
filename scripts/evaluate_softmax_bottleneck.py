"""Gather perplexities, shares of the gap and KLs of every projection, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import read_table, write_table
from knnlm.experiments.softmax_bottleneck.table import evaluate_softmax_bottleneck
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table = evaluate_softmax_bottleneck(
        corpus=snakemake.params.corpus,
        model=snakemake.params.model,
        seeds=snakemake.params.seeds,
        settings=snakemake.params.settings,
        knn=snakemake.params.knn,
        knn_table=read_table(Path(snakemake.input.knn_table)),
        queries=[*map(Path, snakemake.input.queries)],
        neighbors=[*map(Path, snakemake.input.neighbors)],
        projections=[*map(Path, snakemake.input.projections)],
        optima=[*map(Path, snakemake.input.optima)],
    )
    write_table(Path(snakemake.output.table), table)
