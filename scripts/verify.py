"""Check every file of a results folder, and say what to rebuild."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.runtime.job import begin
from knnlm.runtime.verification import report_verification

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    terminal = os.dup(1)
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    text = report_verification(Path(snakemake.params.results))
    os.write(terminal, f"{text}\n".encode())
