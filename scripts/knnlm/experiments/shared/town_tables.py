"""What the tables of several experiments on a town share: rows of seeds, intervals, examples."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import DocumentBootstrap, student_interval
from knnlm.evidence.scored_text import Row
from knnlm.runtime.seeds import numpy_generator
from knnlm.text.macondo.town import SPLITS
from knnlm.text.macondo.villagers import CLAUSES

RESAMPLES = 1000


def shown_name(name: str, fine_tuning: Mapping[str, Any]) -> str:
    """Return how tables call a model: random weights must never pass for a pretrained one."""
    return f"{name} (random weights)" if fine_tuning["init"] == "random" else name


def seeds_and_mean(row: Row, values: Mapping[int, float], *, n: int) -> Iterator[Row]:
    """Yield the number of each seed and, of several, their mean with Student's t interval.

    Args:
        row: the names that all of them have.
        values: by seed.
        n: what each of them is the mean of.
    """
    for seed, value in values.items():
        yield {**row, "seed": seed, "value": value, "n": n}
    if len(values) > 1:
        numbers = np.array([*values.values()])
        low, high = student_interval(numbers)
        ends = {"value": numbers.mean(), "ci_low": low, "ci_high": high}
        yield {**row, "seed": "all", **ends, "n": len(numbers)}


def villager_bootstrap(examples: pd.DataFrame, experiment: str) -> DocumentBootstrap:
    """Return resampled villagers, each with all children: examples of one are not independent."""
    return DocumentBootstrap(
        examples["villager_id"].to_numpy(),
        samples=RESAMPLES,
        generator=numpy_generator(0, experiment, "bootstrap"),
    )


def ratio_with_interval(
    bootstrap: DocumentBootstrap, totals: NDArray[np.floating], weights: NDArray[np.number]
) -> Row:
    """Return the columns of a ratio of two sums over examples: value, ci_low, ci_high."""
    low, high = bootstrap.ratio(totals, weights)
    return {"value": float(totals.sum() / weights.sum()), "ci_low": low, "ci_high": high}


def first_examples(examples: pd.DataFrame, *, column: str) -> pd.DataFrame:
    """Return the first example of each attribute in the words of each split.

    Args:
        examples: of a town.
        column: how the text is called, beside split, attribute and n_children.
    """
    rows = []
    for attribute in CLAUSES:
        chosen = examples[examples["train_attribute"] == attribute].head(1)
        for example in chosen.to_dict("records"):
            for split in SPLITS:
                told = example.get(f"{split}_attribute", "")
                rows.append((split, told, example["n_children"], example[split]))
    return pd.DataFrame(rows, columns=["split", "attribute", "n_children", column])
