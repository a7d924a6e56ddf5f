"""Score sampled positions of a split and keep the hidden states that search needs."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.lm.scoring import score_queries
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    score_queries(
        Target.of(snakemake),
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        queries=snakemake.params.queries,
        sites=snakemake.params.sites,
    )
