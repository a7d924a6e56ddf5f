"""Train an MLP in the place of Macondo's datastore and score the names of the children."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.overspecification.mlp import train_macondo_mlp
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    train_macondo_mlp(
        Target.of(snakemake),
        fine_tuned=Path(snakemake.input.fine_tuned),
        mlp=snakemake.params.mlp,
    )
