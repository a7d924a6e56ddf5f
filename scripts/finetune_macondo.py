"""Fine-tune a model on Macondo and score the names of the children as it goes."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.overspecification.finetuning import finetune_macondo
from knnlm.experiments.shared.fine_tuning import FineTuning
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    finetune_macondo(
        Target.of(snakemake),
        FineTuning.of(snakemake),
        macondo=Path(snakemake.input.macondo),
        scores=snakemake.params.scores,
    )
