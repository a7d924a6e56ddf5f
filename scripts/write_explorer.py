"""Write the neighbor explorer as a page."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.explorer.page import write_explorer
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    write_explorer(
        output=Path(snakemake.output.page),
        data=Path(snakemake.input.passages),
        run=snakemake.params.run,
    )
