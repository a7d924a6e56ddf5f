"""Record every setting of a run, scale and command line merged in."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.artifacts import save_json
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    save_json(Path(snakemake.output.settings), snakemake.params.config)
