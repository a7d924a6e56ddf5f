"""Find the k nearest keys of every query in a part of a datastore."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.parts import Part
from knnlm.retrieval.search import search_part
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    search_part(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        index=Path(snakemake.input.index),
        queries=Path(snakemake.input.queries),
        part=Part(int(snakemake.wildcards.part), snakemake.params.parts),
        search=snakemake.params.search,
        n_queries=snakemake.params.queries,
    )
