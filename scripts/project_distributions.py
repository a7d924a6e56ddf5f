"""Project the kNN-LM's distributions onto the last layers of the LM, by the paper's optimizer."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import read_table
from knnlm.experiments.softmax_bottleneck.walks import project_distributions
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    project_distributions(
        output=Path(snakemake.output.projections),
        fingerprint=snakemake.params.fingerprint,
        model=Path(snakemake.input.model),
        queries=Path(snakemake.input.queries),
        neighbors=Path(snakemake.input.neighbors),
        knn_table=read_table(Path(snakemake.input.knn_table)),
        index=snakemake.params.index,
        site=snakemake.params.site,
        seed=int(snakemake.wildcards.seed),
        last_layers=snakemake.wildcards.last_layers,
        settings=snakemake.params.settings,
    )
