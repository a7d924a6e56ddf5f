"""Find the k nearest keys of every query in a part of a datastore that is never stored."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.engines.fused import search_fused_part
from knnlm.retrieval.parts import Part
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    search_fused_part(
        output=Path(snakemake.output.part),
        fingerprint=snakemake.params.fingerprint,
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        index=Path(snakemake.input.index),
        queries=Path(snakemake.input.queries),
        site=snakemake.params.datastore["site"],
        stride=snakemake.params.datastore["stride"],
        dtype=snakemake.params.datastore["dtype"],
        block_keys=snakemake.params.index["block_keys"],
        k=snakemake.params.search["k"],
        block_queries=snakemake.params.search["block_queries"],
        recall_sample=snakemake.params.search["recall_sample"],
        scores_mib=snakemake.params.search["scores_mib"],
        part=Part(int(snakemake.wildcards.part), snakemake.params.datastore["parts"]),
    )
