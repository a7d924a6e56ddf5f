"""Draw the learning curves of models with and without the last MLP from the tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table
from knnlm.experiments.mlp_hurdle.figure import draw_mlp_hurdle
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table = read_table(Path(snakemake.input.table))
    curves = read_table(Path(snakemake.input.curves))
    with look():
        save_figure(
            draw_mlp_hurdle(table, curves),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )
