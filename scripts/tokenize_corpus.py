"""Turn each split into one stream of tokens, with documents, words and lines counted."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.job import begin
from knnlm.runtime.making import Target
from knnlm.text.encoding import tokenize_corpus

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    tokenize_corpus(
        Target.of(snakemake),
        text=Path(snakemake.input.text),
        tokenizer=Path(snakemake.input.tokenizer),
        needed=snakemake.params.needed,
    )
