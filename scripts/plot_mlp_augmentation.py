"""Draw perplexity, bytes and FLOPs of LM, kNN-LM, MLP replacements and controls."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table
from knnlm.experiments.mlp_augmentation.figure import draw_mlp_augmentation
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    with look():
        save_figure(
            draw_mlp_augmentation(read_table(Path(snakemake.input.table))),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )
