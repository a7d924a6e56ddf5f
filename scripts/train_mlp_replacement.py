"""Train an MLP in the place of a datastore, on the datastore's own pairs."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.mlp_augmentation.stored_replacement import train_replacement
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    train_replacement(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        model=Path(snakemake.input.model),
        settings=snakemake.params.settings,
    )
