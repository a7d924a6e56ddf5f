"""Find the k nearest keys of every query, once and for all."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.neighbors import search
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    search(
        output=Path(snakemake.output.neighbors),
        fingerprint=snakemake.params.fingerprint,
        datastore=Path(snakemake.input.datastore),
        index=Path(snakemake.input.index),
        queries=Path(snakemake.input.queries),
        k=snakemake.params.search["k"],
        block_queries=snakemake.params.search["block_queries"],
        recall_sample=snakemake.params.search["recall_sample"],
        seed=int(snakemake.wildcards.seed),
    )
