"""Record versions, commit and processor of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.artifacts import save_json
from knnlm.runtime.job import begin
from knnlm.runtime.provenance import environment

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    save_json(
        Path(snakemake.output.environment),
        environment(
            root=Path(__file__).resolve().parents[1],
            config=snakemake.params.config,
        ),
    )
