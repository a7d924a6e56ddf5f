"""Store hidden states of whole documents, and score the queries with more left context."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.continuous_cache.documents import encode_documents
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    encode_documents(
        Target.of(snakemake),
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        queries=snakemake.params.queries,
        sizes=snakemake.params.sizes,
        more_context_stride=snakemake.params.more_context_stride,
    )
