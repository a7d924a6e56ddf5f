"""Fine-tune a hosted model on Macondo-Conv and ask it the test questions."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.conversational_hosted.finetuning import finetune_hosted
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    finetune_hosted(
        output=Path(snakemake.output.fine_tuned),
        fingerprint=snakemake.params.fingerprint,
        plan=Path(snakemake.input.plan),
        conversations=Path(snakemake.input.conversations),
        trained_on=snakemake.wildcards.trained_on,
        settings=snakemake.params.settings,
        seed=int(snakemake.wildcards.seed),
        states=Path("data/hosted"),
    )
