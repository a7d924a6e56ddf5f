"""Write the villagers of Macondo and the sentences about their children."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.job import begin
from knnlm.runtime.making import Target
from knnlm.text.macondo.dataset import build_macondo

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    build_macondo(
        Target.of(snakemake),
        macondo=snakemake.params.macondo,
        tokenizer=Path(snakemake.input.tokenizer[0]) if snakemake.input.tokenizer else None,
        sources=Path("data/sources.csv"),
        cache=Path("data/downloads"),
    )
