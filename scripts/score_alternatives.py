"""Score the targets by every distribution that might stand in the place of kNN's."""

from typing import TYPE_CHECKING

from knnlm.experiments.ruled_out.alternatives import score_alternatives
from knnlm.experiments.shared.job import paths_of
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    score_alternatives(
        Target.of(snakemake),
        inputs=paths_of(snakemake.input.items()),
        settings=snakemake.params.settings,
    )
