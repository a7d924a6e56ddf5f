"""Score LM, kNN-LM, MLP replacements and controls on the same tokens; count bytes and FLOPs."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.evidence.tables import read_table, write_table
from knnlm.experiments.mlp_augmentation.table import evaluate_mlp_augmentation
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    table = evaluate_mlp_augmentation(
        corpus=snakemake.params.corpus,
        model=snakemake.params.model,
        seeds=snakemake.params.seeds,
        settings=snakemake.params.settings,
        training=snakemake.params.training,
        knn=snakemake.params.knn,
        indexes=snakemake.params.indexes,
        knn_table=read_table(Path(snakemake.input.knn_table)),
        macondo_table=read_table(Path(snakemake.input.macondo_table)),
        models=[*map(Path, snakemake.input.models)],
        datastores=[*map(Path, snakemake.input.datastores)],
        index_folders=[*map(Path, snakemake.input.index_folders)],
        queries=[*map(Path, snakemake.input.queries)],
        neighbors=[*map(Path, snakemake.input.neighbors)],
        replacements=[*map(Path, snakemake.input.replacements)],
        controls=[*map(Path, snakemake.input.controls)],
        control_queries=[*map(Path, snakemake.input.control_queries)],
    )
    write_table(Path(snakemake.output.table), table)
