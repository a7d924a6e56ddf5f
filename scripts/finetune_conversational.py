"""Fine-tune a chat model on Macondo-Conv and score its answers after every epoch."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.conversational.finetuning import finetune_conversational
from knnlm.experiments.shared.fine_tuning import FineTuning
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    finetune_conversational(
        Target.of(snakemake),
        FineTuning.of(snakemake),
        conversations=Path(snakemake.input.conversations),
        trained_tokens=snakemake.params.trained_tokens,
    )
