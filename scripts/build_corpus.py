"""Write the three splits of a corpus as text, cut into documents."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.job import begin
from knnlm.runtime.making import Target
from knnlm.text.corpus import build_corpus

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    whole = snakemake.input.get("whole")
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    build_corpus(
        Target.of(snakemake),
        corpus=snakemake.params.corpus,
        cache=Path("data/downloads"),
        whole=Path(whole) if whole else None,
    )
