"""Record the checksum of every file of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.job import begin
from knnlm.runtime.verification import record_checksums

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    record_checksums(Path(snakemake.output.record))
