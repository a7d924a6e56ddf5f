"""Find the k nearest keys of every query in each of some nested shares of a datastore."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.share_search import search_shares
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    search_shares(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        index=Path(snakemake.input.index),
        queries=Path(snakemake.input.queries),
        search=snakemake.params.search,
        shares=snakemake.params.shares,
        n_queries=snakemake.params.queries,
    )
