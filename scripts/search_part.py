"""Find the k nearest keys of every query in a part of a datastore."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.parts import Part
from knnlm.retrieval.search import search_part
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    search_part(
        output=Path(snakemake.output.part),
        fingerprint=snakemake.params.fingerprint,
        datastore=Path(snakemake.input.datastore),
        index=Path(snakemake.input.index),
        queries=Path(snakemake.input.queries),
        seed=int(snakemake.wildcards.seed),
        part=Part(int(snakemake.wildcards.part), snakemake.params.parts),
        **snakemake.params.search,
    )
