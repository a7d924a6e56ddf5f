"""Choose k, temperature and lmbda on validation, from stored neighbors."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.tuning import tune_interpolation
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    tune_interpolation(
        Target.of(snakemake),
        queries=Path(snakemake.input.queries),
        neighbors=Path(snakemake.input.neighbors),
        grid=snakemake.params.grid,
    )
