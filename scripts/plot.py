"""Draw the figure of one experiment from its tables alone."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.plotting import look, save_figure
from knnlm.experiments.shared.job import tables_by_name
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    figure = import_module(f"knnlm.experiments.{snakemake.wildcards.experiment}.figure")
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    with look():
        save_figure(
            figure.draw(tables_by_name(snakemake.input.items())),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )
