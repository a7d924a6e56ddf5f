"""Fine-tune a hosted model on Macondo-Conv and ask it the test questions."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.conversational_hosted.finetuning import finetune_hosted
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    finetune_hosted(
        Target.of(snakemake),
        plan=Path(snakemake.input.plan),
        conversations=Path(snakemake.input.conversations),
        settings=snakemake.params.settings,
        states=Path("data/hosted"),
    )
