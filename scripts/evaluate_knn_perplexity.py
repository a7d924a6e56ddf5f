"""Score LM, kNN-LM and control on the same tokens, with k, temperature and lmbda tuned."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import write_table
from knnlm.experiments.knn_perplexity.table import evaluate_knn_perplexity
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table, curves = evaluate_knn_perplexity(
        corpus=snakemake.params.corpus,
        model=snakemake.params.model,
        seeds=snakemake.params.seeds,
        settings=snakemake.params.settings,
        text=Path(snakemake.input.text),
        tokens=Path(snakemake.input.tokens),
        queries=[*map(Path, snakemake.input.queries)],
        control_queries=[*map(Path, snakemake.input.control_queries)],
        neighbors=[*map(Path, snakemake.input.neighbors)],
    )
    write_table(Path(snakemake.output.table), table)
    write_table(Path(snakemake.output.grid), curves)
