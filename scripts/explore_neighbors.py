"""Choose passages of test and tell what LM, kNN and their mixture say of each token."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import read_table
from knnlm.experiments.shared.neighbor_explorer import explore
from knnlm.runtime.artifacts import save_json
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    passages = explore(
        settings=snakemake.params.settings,
        table=read_table(Path(snakemake.input.knn_table)),
        index=snakemake.params.index,
        seed=snakemake.params.seed,
        text=Path(snakemake.input.text),
        tokens=Path(snakemake.input.tokens),
        tokenizer=Path(snakemake.input.tokenizer),
        model=Path(snakemake.input.model),
        queries=Path(snakemake.input.queries),
        neighbors=Path(snakemake.input.neighbors),
    )
    save_json(Path(snakemake.output.passages), passages)
