"""Choose passages of test and tell what LM, kNN and their mixture say of each token."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.experiments.shared.neighbor_explorer import ExplorerInputs, explore
from knnlm.retrieval.tuning import read_tuned
from knnlm.runtime.artifacts import save_json
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    passages = explore(
        ExplorerInputs(
            text=Path(snakemake.input.text),
            tokens=Path(snakemake.input.tokens),
            datastore_tokens=Path(snakemake.input.datastore_tokens),
            tokenizer=Path(snakemake.input.tokenizer),
            model=Path(snakemake.input.model),
            queries=Path(snakemake.input.queries),
            neighbors=Path(snakemake.input.neighbors),
        ),
        read_tuned(Path(snakemake.input.point)),
        settings=snakemake.params.settings,
    )
    save_json(Path(snakemake.output.passages), passages)
