"""Encode the keys of a part of a datastore for a trained index."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.engines.inverted_file import encode_index_part
from knnlm.retrieval.parts import Part
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    encode_index_part(
        Target.of(snakemake),
        datastore=Path(snakemake.input.datastore),
        head=Path(snakemake.input.head),
        part=Part(int(snakemake.wildcards.part), snakemake.params.parts),
    )
