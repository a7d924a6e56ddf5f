"""Train a search index on sampled keys."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.engines.inverted_file import train_index
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    train_index(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        index=snakemake.params.index,
    )
