"""Save one key and one value for each token of a part of the train split."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.datastore_parts import build_datastore_part
from knnlm.retrieval.parts import Part
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    build_datastore_part(
        Target.of(snakemake),
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        datastore=snakemake.params.datastore,
        part=Part(int(snakemake.wildcards.part), snakemake.params.datastore["parts"]),
    )
