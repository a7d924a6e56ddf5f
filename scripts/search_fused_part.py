"""Find the k nearest keys of every query in a part of a datastore that is never stored."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.engines.fused import search_fused_part
from knnlm.retrieval.parts import Part
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    search_fused_part(
        Target.of(snakemake),
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        index=Path(snakemake.input.index),
        queries=Path(snakemake.input.queries),
        datastore=snakemake.params.datastore,
        search=snakemake.params.search,
        part=Part(int(snakemake.wildcards.part), snakemake.params.datastore["parts"]),
    )
