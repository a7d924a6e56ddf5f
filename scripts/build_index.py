"""Put the trained index and the codes of all parts under one name; exact search has none."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.engines.settings import build_index
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0])
    build_index(
        Target.of(snakemake),
        index=snakemake.params.index,
        datastore=[*map(Path, snakemake.input.datastore)],
        head=[*map(Path, snakemake.input.head)],
        parts=[*map(Path, snakemake.input.parts)],
    )
