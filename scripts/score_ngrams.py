"""Count the n-grams of the train split, and score validation and test with every order."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.ngram_interpolation.counting import score_ngrams
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    score_ngrams(
        Target.of(snakemake),
        train=Path(snakemake.input.train),
        tokens=Path(snakemake.input.tokens),
        orders=snakemake.params.orders,
    )
