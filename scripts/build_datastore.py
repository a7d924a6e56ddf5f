"""Put the parts of a datastore under one name; no key is read or written again."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.parts import join_parts
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0])
    join_parts(
        Target.of(snakemake),
        kind="datastore",
        parts=[*map(Path, snakemake.input.parts)],
    )
