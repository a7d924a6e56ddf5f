"""Train a byte-level BPE on the train split, or fetch a pretrained tokenizer."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.job import begin
from knnlm.runtime.making import Target
from knnlm.text.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    build_tokenizer(
        Target.of(snakemake),
        text=Path(snakemake.input.text[0]) if snakemake.input.text else None,
        tokenizer=snakemake.params.tokenizer,
        cache=Path("data/downloads"),
    )
