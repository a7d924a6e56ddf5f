"""Collect the losses and likelihoods of a chat model's answers over models, seeds and epochs."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import write_table, write_texts
from knnlm.experiments.conversational.table import evaluate_conversational
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table, curves, examples = evaluate_conversational(
        corpus=snakemake.params.corpus,
        fine_tunings=snakemake.params.fine_tunings,
        seeds=snakemake.params.seeds,
        conversations=list(map(Path, snakemake.input.conversations)),
        fine_tuned=list(map(Path, snakemake.input.fine_tuned)),
    )
    write_table(Path(snakemake.output.table), table)
    write_table(Path(snakemake.output.curves), curves)
    write_texts(Path(snakemake.output.examples), examples)
