"""What a run cost: Snakemake's benchmark files gathered into one table.

Wall-clock values live here and in the benchmark files, never in an artifact or another table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

# column of Snakemake's benchmark file -> column here; "-" and "NA" stand for jobs too short
MEASURED = {"s": "seconds", "max_rss": "max_rss_mb", "cpu_time": "cpu_seconds"}
COLUMNS = ("paper", "experiment", "rule", "wildcards", *MEASURED.values())
NEITHER = ("", "")  # paper and experiment of a job that belongs to none


def collect_costs(benchmarks: Path, counted_for: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return one row for each finished job: rule, wildcards, seconds, peak memory, CPU seconds.

    Args:
        benchmarks: the folder with {rule}/{wildcards}.tsv; a rule without wildcards has
            {rule}.tsv. Wildcards may span folders.
        counted_for: paper and experiment by benchmark file; a step that experiments share is
            counted for one of them.

    Returns:
        Columns paper, experiment, rule, wildcards, seconds, max_rss_mb (1 MB = 2^20 bytes, of the
        whole process tree), cpu_seconds; sorted by rule and wildcards. What Snakemake could not
        measure is NaN.

    Raises:
        ValueError: naming the file, if one is not a benchmark file.
    """
    rows = []
    for path in sorted(benchmarks.rglob("*.tsv")):
        rule, *wildcards = path.relative_to(benchmarks).with_suffix("").parts
        measured = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
        absent = [name for name in MEASURED if name not in measured.columns]
        if absent:
            raise ValueError(
                f"expected {path} to be a benchmark file of Snakemake with the columns "
                f"{', '.join(MEASURED)}, got {', '.join(measured.columns)}; remove it"
            )
        for values in measured[list(MEASURED)].astype(float).itertuples(index=False):
            paper, experiment = counted_for.get(str(path), NEITHER)
            rows.append((paper, experiment, rule, "/".join(wildcards), *values))
    return pd.DataFrame(rows, columns=list(COLUMNS))
