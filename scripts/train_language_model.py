"""Train a language model from random weights or another's, or continue a shorter training."""

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
    inputs = snakemake.input
    trunk, start = inputs.get("trunk"), inputs.get("start")
    teacher, distributions = inputs.get("teacher"), inputs.get("distributions")
    train_language_model(
        Target.of(snakemake),
        tokens=Path(inputs.tokens),
        tokenizer=Path(inputs.tokenizer),
        model=snakemake.params.model,
        trunk=Path(trunk) if trunk else None,
        start=Path(start) if start else None,
        teacher=Path(teacher) if teacher else None,
        distributions=Path(distributions) if distributions else None,
    )
