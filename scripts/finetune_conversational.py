"""Fine-tune a chat model on Macondo-Conv and score its answers after every epoch."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.conversational.finetuning import finetune_conversational
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    finetune_conversational(
        output=Path(snakemake.output.fine_tuned),
        fingerprint=snakemake.params.fingerprint,
        conversations=Path(snakemake.input.conversations),
        model=Path(snakemake.input.model) if snakemake.input.model else None,
        tokenizer=Path(snakemake.input.tokenizer) if snakemake.input.tokenizer else None,
        fine_tuning=snakemake.params.fine_tuning,
        shape=snakemake.params.shape,
        trained_tokens=snakemake.params.trained_tokens,
        seed=int(snakemake.wildcards.seed),
        cache=Path("data/downloads"),
    )
