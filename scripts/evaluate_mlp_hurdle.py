"""Compare the learning curves of models with and without the last MLP."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import write_table
from knnlm.experiments.mlp_hurdle.table import evaluate_mlp_hurdle
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table, curves = evaluate_mlp_hurdle(
        corpus=snakemake.params.corpus,
        seeds=snakemake.params.seeds,
        macondo=[*map(Path, snakemake.input.macondo)],
        on_macondo=[*map(Path, snakemake.input.on_macondo)],
        on_text=[*map(Path, snakemake.input.on_text)],
    )
    write_table(Path(snakemake.output.table), table)
    write_table(Path(snakemake.output.curves), curves)
