"""Take a pretrained language model from the hub or a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.lm.pretrained import fetch_language_model
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    fetch_language_model(
        Target.of(snakemake),
        tokenizer=Path(snakemake.input.tokenizer),
        model=snakemake.params.model,
    )
