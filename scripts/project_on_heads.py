"""Project the kNN-LM's distributions onto linear heads, each to its certified optimum."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import read_table
from knnlm.experiments.softmax_bottleneck.optima import project_on_heads
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    names, folders = snakemake.params.settings["heads"], map(Path, snakemake.input.others)
    project_on_heads(
        output=Path(snakemake.output.optima),
        fingerprint=snakemake.params.fingerprint,
        model=Path(snakemake.input.model),
        others=dict(zip(names, folders, strict=True)),
        queries=Path(snakemake.input.queries),
        neighbors=Path(snakemake.input.neighbors),
        knn_table=read_table(Path(snakemake.input.knn_table)),
        published=snakemake.params.published,
        index=snakemake.params.index,
        site=snakemake.params.site,
        seed=int(snakemake.wildcards.seed),
        settings=snakemake.params.settings,
    )
