"""Train output embeddings of several sizes on a datastore's own pairs."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.trained_embeddings.stored_embeddings import train_embeddings
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    train_embeddings(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        model=Path(snakemake.input.model),
        sizes=snakemake.params.sizes,
        settings=snakemake.params.settings,
    )
