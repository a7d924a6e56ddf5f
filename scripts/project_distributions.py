"""Project kNN-LMs' distributions onto the last layers of the LM, by the paper's optimizer."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.softmax_bottleneck.problem import ProjectionInputs, points_of
from knnlm.experiments.softmax_bottleneck.walks import project_distributions
from knnlm.retrieval.tuning import read_tuned
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    project_distributions(
        Target.of(snakemake),
        inputs=ProjectionInputs.of(snakemake),
        points=points_of(read_tuned(Path(snakemake.input.point)).point, snakemake.params.published),
        settings=snakemake.params.settings,
    )
