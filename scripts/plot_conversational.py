"""Draw the loss and the likelihood of a chat model's answers over epochs from the tables alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table
from knnlm.experiments.conversational.figure import draw_conversational
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    with look():
        save_figure(
            draw_conversational(
                read_table(Path(snakemake.input.table)), read_table(Path(snakemake.input.curves))
            ),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )
