"""Count what the fine-tuning of a hosted model would send."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import write_texts
from knnlm.experiments.conversational_hosted.finetuning import plan_hosted
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    plan = plan_hosted(
        conversations=list(map(Path, snakemake.input.conversations)),
        seeds=snakemake.params.seeds,
        settings=snakemake.params.settings,
        cache=Path("data/downloads"),
    )
    write_texts(Path(snakemake.output.plan), plan)
