"""What the scripts that serve every experiment do with paths and tables."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from knnlm.evidence.tables import COLUMNS, read_table, write_table, write_texts

Inputs = Mapping[str, Sequence[Path]]  # the paths of a rule, by the name of the input
Named = Iterable[tuple[str, str | Sequence[str]]]  # as Snakemake has them


def paths_of(named: Named) -> Inputs:
    """Return each named input as a list of paths, however many there are."""
    return {
        name: [Path(found)] if isinstance(found, str) else [*map(Path, found)]
        for name, found in named
    }


def write_tables(tables: Mapping[str, pd.DataFrame], outputs: Named) -> None:
    """Write each table to the output of the same name, as CSV, atomically.

    Args:
        tables: tidy ones, or of sentences and the like, which lack the standard columns.
        outputs: of the rule.

    Raises:
        ValueError: if an experiment returned other tables than its rule names.
    """
    files = {name: Path(file) for name, file in outputs}
    if set(files) != set(tables):
        raise ValueError(
            f"expected evaluate to return the tables {', '.join(sorted(files))}, the outputs of "
            f"its rule, got {', '.join(sorted(tables))}"
        )
    for name, table in tables.items():
        is_tidy = tuple(table.columns[: len(COLUMNS)]) == COLUMNS
        (write_table if is_tidy else write_texts)(files[name], table)


def tables_by_name(named: Named) -> dict[str, pd.DataFrame]:
    """Return the tidy tables that a figure is drawn from, by the name of the input."""
    return {name: read_table(Path(file)) for name, file in named}
