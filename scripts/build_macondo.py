"""Write the villagers of Macondo and the sentences about their children."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.job import begin
from knnlm.text.macondo.dataset import build_macondo

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    build_macondo(
        output=Path(snakemake.output.macondo),
        fingerprint=snakemake.params.fingerprint,
        seed=int(snakemake.wildcards.seed),
        macondo=snakemake.params.macondo,
        tokenizer=Path(snakemake.input[0]) if snakemake.input else None,
        sources=Path("data/sources.csv"),
        cache=Path("data/downloads"),
    )
