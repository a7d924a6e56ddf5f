"""Save one key and one value for each token of the train split."""

from pathlib import Path
from typing import TYPE_CHECKING

from knnlm.retrieval.datastore import build_datastore
from knnlm.runtime.job import begin

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    begin(log=snakemake.log[0], threads=snakemake.params.threads)
    build_datastore(
        output=Path(snakemake.output.datastore),
        fingerprint=snakemake.params.fingerprint,
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        site=snakemake.params.datastore["site"],
        stride=snakemake.params.datastore["stride"],
        dtype=snakemake.params.datastore["dtype"],
        shard_mib=snakemake.params.datastore["shard_mib"],
    )
