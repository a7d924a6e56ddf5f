"""Write the report of a run and copy its tables beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.report.page import write_report
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    write_report(
        output=Path(snakemake.output.report),
        run=Path(snakemake.output.report).parents[1],
        questions=snakemake.params.questions,
        captions=snakemake.params.captions,
        switched_off=snakemake.params.switched_off,
        checksum_gib=snakemake.params.settings["checksum_gib"],
    )
