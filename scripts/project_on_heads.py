"""Project the kNN-LM's distributions onto linear heads, each to its certified optimum."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.softmax_bottleneck.optima import project_on_heads
from knnlm.experiments.softmax_bottleneck.problem import ProjectionInputs, points_of
from knnlm.retrieval.tuning import read_tuned
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    project_on_heads(
        Target.of(snakemake),
        inputs=ProjectionInputs.of(snakemake),
        others=[*map(Path, snakemake.input.others)],
        points=points_of(read_tuned(Path(snakemake.input.point)).point, snakemake.params.published),
        settings=snakemake.params.settings,
    )
