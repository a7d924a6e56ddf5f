"""Collect the likelihoods of the children's names over models, seeds and epochs."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import write_table, write_texts
from knnlm.experiments.overspecification.table import evaluate_overspecification
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table, curves, sentences = evaluate_overspecification(
        corpus=snakemake.params.corpus,
        settings=snakemake.params.settings,
        seeds=snakemake.params.seeds,
        macondo=list(map(Path, snakemake.input.macondo)),
        fine_tuned=list(map(Path, snakemake.input.fine_tuned)),
        mlp=list(map(Path, snakemake.input.mlp)),
    )
    write_table(Path(snakemake.output.table), table)
    write_table(Path(snakemake.output.curves), curves)
    write_texts(Path(snakemake.output.examples), sentences)
