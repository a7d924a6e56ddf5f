"""Fine-tune a model on Macondo and score the names of the children as it goes."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.overspecification.finetuning import finetune_macondo
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    finetune_macondo(
        output=Path(snakemake.output.fine_tuned),
        fingerprint=snakemake.params.fingerprint,
        macondo=Path(snakemake.input.macondo),
        model=Path(snakemake.input.model) if snakemake.input.model else None,
        tokenizer=Path(snakemake.input.tokenizer) if snakemake.input.tokenizer else None,
        fine_tuning=snakemake.params.fine_tuning,
        shape=snakemake.params.shape,
        scores=snakemake.params.scores,
        seed=int(snakemake.wildcards.seed),
        cache=Path("data/downloads"),
    )
