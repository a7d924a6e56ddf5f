"""Draw the share of the perplexity gap that projections recover, by method and by rank."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table
from knnlm.experiments.softmax_bottleneck.figure import draw_softmax_bottleneck
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    with look():
        save_figure(
            draw_softmax_bottleneck(read_table(Path(snakemake.input.table))),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )
