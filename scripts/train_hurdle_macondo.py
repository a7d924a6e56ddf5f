"""Train models with and without the last MLP on the test sentences of Macondo."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.mlp_hurdle.tasks import macondo_task
from knnlm.experiments.mlp_hurdle.training import train_variants
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    own = snakemake.input.tokenizer
    target = Target.of(snakemake)
    task = macondo_task(
        Path(snakemake.input.macondo),
        Path(own) if own else snakemake.params.tokenizer,
        settings=snakemake.params.settings,
        context=snakemake.params.shape["context"],
        seed=target.seed,
        cache=Path("data/downloads"),
    )
    train_variants(target, task, shape=snakemake.params.shape, settings=snakemake.params.settings)
