"""Merge the neighbors that were found in each part of a datastore."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.neighbors import merge_neighbors
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0])
    merge_neighbors(
        Target.of(snakemake),
        parts=[*map(Path, snakemake.input.parts)],
    )
