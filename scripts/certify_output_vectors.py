"""Certify which output vectors of an LM lie in the convex hull of the others."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.ruled_out.stolen_probabilities import certify_output_vectors
from knnlm.runtime.job import begin
from knnlm.runtime.making import Target

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    certify_output_vectors(
        Target.of(snakemake),
        models=[*map(Path, snakemake.input.models)],
        settings=snakemake.params.settings,
    )
