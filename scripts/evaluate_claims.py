"""Hold what the papers claim against the tables of a run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.claims import Evidence, evaluate_claims, read_claims
from knnlm.evidence.selection import read_tables
from knnlm.evidence.tables import write_csv
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    evidence = Evidence(
        tables=read_tables(list(map(Path, snakemake.input.tables))),
        experiments=snakemake.params.experiments,
        settings=json.loads(Path(snakemake.input.settings).read_text(encoding="utf-8")),
    )
    verdicts = evaluate_claims(read_claims(map(Path, snakemake.input.claims)), evidence)
    write_csv(Path(snakemake.output.claims), verdicts)
