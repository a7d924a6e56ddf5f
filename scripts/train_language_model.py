"""Train a language model from scratch, or continue a shorter training of the same model."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.lm.pretraining import train_language_model
from knnlm.runtime.job import begin
from knnlm.runtime.launch import share
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    share(snakemake.resources)
    trunk = snakemake.input.get("trunk")
    teacher = snakemake.input.get("teacher")
    distributions = snakemake.input.get("distributions")
    train_language_model(
        Target.of(snakemake),
        tokens=Path(snakemake.input.tokens),
        tokenizer=Path(snakemake.input.tokenizer),
        model=snakemake.params.model,
        trunk=Path(trunk) if trunk else None,
        teacher=Path(teacher) if teacher else None,
        distributions=Path(distributions) if distributions else None,
    )
