"""Draw perplexity over lmbda, temperature and k from the table of curves."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table
from knnlm.experiments.knn_perplexity.figure import draw_knn_perplexity
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    with look():
        save_figure(
            draw_knn_perplexity(read_table(Path(snakemake.input.grid))),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )
