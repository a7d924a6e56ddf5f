"""Find what a kNN-LM says of every position of its own train split, each without itself."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.train_distributions import find_train_distributions
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    find_train_distributions(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        tuned=Path(snakemake.input.tuned),
        search=snakemake.params.search,
        windows=snakemake.params.windows,
    )
