"""Train a finished LM on, in part or as a whole, by as much as an MLP replacement is trained."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.mlp_augmentation.controls import train_control
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    train_control(
        Target.of(snakemake),
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        settings=snakemake.params.settings,
    )
