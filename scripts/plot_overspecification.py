"""Draw the likelihood of the children's names over epochs from the tables alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table
from knnlm.experiments.overspecification.figure import draw_overspecification
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    with look():
        save_figure(
            draw_overspecification(
                read_table(Path(snakemake.input.table)), read_table(Path(snakemake.input.curves))
            ),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )
