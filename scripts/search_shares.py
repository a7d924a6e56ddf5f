"""Find the neighbors of queries in nested shares of a datastore, really and by an index of each."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.approximate_search.share_search import search_shares
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    search_shares(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        queries={split: Path(snakemake.input[split]) for split in ("validation", "test")},
        index=snakemake.params.index,
        search=snakemake.params.search,
        settings=snakemake.params.settings,
    )
