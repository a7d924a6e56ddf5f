"""Write the report of a run and copy its tables beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.report.page import Shown, by_experiment, write_report
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    write_report(
        output=Path(snakemake.output.report),
        run=Path(snakemake.output.report).parents[1],
        shown=Shown(
            questions=snakemake.params.questions,
            not_run=snakemake.params.not_run,
            tables=snakemake.params.experiments,
            captions=by_experiment(snakemake.input.captions),
            headlines=by_experiment(snakemake.input.headlines),
            recorded=list(snakemake.input.recorded),
        ),
        checksum_gib=snakemake.params.settings["checksum_gib"],
    )
