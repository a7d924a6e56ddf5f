"""Put what the papers print beside what a run measured."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.comparison import compare, read_published
from knnlm.evidence.selection import read_tables
from knnlm.evidence.tables import write_csv
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    comparison = compare(
        read_published(Path(snakemake.input.published)),
        read_tables(list(map(Path, snakemake.input.tables))),
        known=list(snakemake.params.experiments),
        settings=json.loads(Path(snakemake.input.settings).read_text(encoding="utf-8")),
    )
    write_csv(Path(snakemake.output.comparison), comparison)
