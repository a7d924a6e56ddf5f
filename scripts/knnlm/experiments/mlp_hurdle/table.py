"""Whether the last MLP slows memorization, or whether any MLP less makes a model faster.

Chiang et al. (2024), Appendix E, Figures 4 and 5: models with random weights learn the test
sentences of Macondo, or text, with and without the last MLP. Beside them one without an MLP in
the middle, and one without the last whose other MLPs are wider, so that it has as many
parameters as the full one.

Variants of a seed start with the same weights and see the same batches, so they are compared
within each seed; intervals are Student's t over these differences. On Macondo a positive
difference means faster, on text, where it is one of losses, a negative one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import student_interval
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.mlp_hurdle.names import (
    FULL,
    KIND,
    LIKELIHOOD,
    LOSS,
    MATCHED,
    VARIANTS,
    WITHOUT_LAST,
    WITHOUT_MIDDLE,
)
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.text.macondo.dataset import KIND as MACONDO
from knnlm.text.macondo.dataset import read_examples

EXPERIMENT = "mlp_hurdle"
MODEL = "random weights"
SPLIT = {LIKELIHOOD: "test", LOSS: "train"}  # of what is trained on, and scored
COMPARED = (
    (WITHOUT_LAST, FULL),
    (WITHOUT_MIDDLE, FULL),
    (MATCHED, FULL),
    (WITHOUT_LAST, WITHOUT_MIDDLE),
)
EARLY = 0.5  # share of the updates that is called early; fixed before the first run

Row = dict[str, Any]


@dataclass(frozen=True)
class Curves:
    """The curves of one task.

    Attributes:
        names: experiment, corpus, model and split of the rows.
        metric: `LIKELIHOOD` or `LOSS`.
        seeds: of the trainings.
        steps: (n_points,), finished updates at each point.
        values: for each variant (n_seeds, n_points), in nats.
        counts: (n_points,), sentences or tokens that a value of one seed is the mean of.
        parameters: for each variant (n_seeds,); the vocabulary may depend on the town.
    """

    names: Mapping[str, str]
    metric: str
    seeds: Sequence[int]
    steps: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    counts: NDArray[np.int64]
    parameters: Mapping[str, NDArray[np.int64]]

    def numbers(self) -> Iterator[tuple[Row, NDArray[np.float64]]]:
        """Yield the names of every curve and its values: variants, then paired differences."""
        named = {**self.names, "unit": "nats"}
        for variant in VARIANTS:
            yield {**named, "method": variant, "metric": self.metric}, self.values[variant]
        for variant, other in COMPARED:
            difference = self.values[variant] - self.values[other]
            yield {**named, "method": variant, "metric": f"{self.metric}_vs_{other}"}, difference

    def points(self) -> Iterator[Row]:
        """Yield the rows of all curves: each point for each seed, and over the seeds."""
        for row, values in self.numbers():
            for place, step in enumerate(self.steps):
                column = values[:, place]
                for seed, value in zip(self.seeds, column, strict=True):
                    yield {**row, "seed": seed, "value": value, "n": self.counts[place]} | {
                        "step": step
                    }
                if len(self.seeds) > 1:
                    low, high = student_interval(column)
                    ends = {"ci_low": low, "ci_high": high, "n": len(self.seeds)}
                    yield {**row, "seed": "all", "value": column.mean(), "step": step} | ends

    def summary(self) -> Iterator[Row]:
        """Yield the mean of each curve over parts of the training, for each seed.

        The point before the first update, which has no loss, belongs to no part.
        """
        last = self.steps[-1]
        parts = {
            "early": (self.steps > 0) & (self.steps <= EARLY * last),
            "whole": self.steps > 0,
            "end": self.steps == last,
        }
        for row, values in self.numbers():
            for setting, inside in parts.items():
                # The same sentences are scored at every point, but tokens are always new.
                n = self.counts[inside].sum() if self.metric == LOSS else self.counts[-1]
                for seed, mean in zip(self.seeds, values[:, inside].mean(axis=1), strict=True):
                    yield {**row, "setting": setting, "seed": seed, "value": mean, "n": n}

    def sizes(self) -> Iterator[Row]:
        """Yield the number of parameters of each variant, and its ratio to that of `full`."""
        for variant in VARIANTS:
            found = self.parameters[variant]
            ratios = found / self.parameters[FULL]
            for seed, count, ratio in zip(self.seeds, found, ratios, strict=True):
                row = {**self.names, "method": variant, "seed": seed, "n": 1}
                yield {**row, "metric": "parameters", "value": count, "unit": "parameters"}
                yield {**row, "metric": "parameters_over_full", "value": ratio, "unit": "ratio"}


def evaluate_mlp_hurdle(
    *,
    corpus: str,
    seeds: Sequence[int],
    macondo: Sequence[Path],
    on_macondo: Sequence[Path],
    on_text: Sequence[Path],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of means over parts of the training, and the curves.

    Settings of the first: early (the first half of the updates), whole, end (the last point).

    Args:
        corpus: of the text.
        seeds: of towns and trainings.
        macondo: the town of each seed.
        on_macondo: the curves of each seed, trained on its town.
        on_text: the curves of each seed, trained on text.

    Returns:
        Two tidy tables, the second with the column step.

    Raises:
        ArtifactError: if a folder is not whole, or curves are of another town.
    """
    for town, folder in zip(macondo, on_macondo, strict=True):
        origin = identity(town, kind=MACONDO)
        require_origin(folder, kind=KIND, role="macondo", expected=origin)
    tasks = [
        read_curves(on_macondo, corpus="macondo", seeds=seeds),
        read_curves(on_text, corpus=corpus, seeds=seeds),
    ]
    table = tidy([row for task in tasks for row in task.summary()])
    sizes = tidy([row for task in tasks for row in task.sizes()])
    levels = tidy([_theory(macondo[0], tasks[0].names)])
    curves = tidy([row for task in tasks for row in task.points()], coordinates=("step",))
    parts = [table, means_over_seeds(table), levels, sizes]
    return pd.concat(parts, ignore_index=True), curves


def read_curves(folders: Sequence[Path], *, corpus: str, seeds: Sequence[int]) -> Curves:
    """Return the curves of one task from the artifacts of all seeds."""
    contents = [read_manifest(folder, kind=KIND)["contents"] for folder in folders]
    metric, scored = contents[0]["metric"], contents[0]["scored"]
    tables = {
        variant: [pd.read_parquet(folder / f"{variant}.parquet") for folder in folders]
        for variant in VARIANTS
    }
    steps = tables[FULL][0]["step"].to_numpy(dtype=np.int64)
    updates = np.diff(steps, prepend=0)
    return Curves(
        names={"experiment": EXPERIMENT, "corpus": corpus, "model": MODEL, "split": SPLIT[metric]},
        metric=metric,
        seeds=seeds,
        steps=steps,
        values={
            variant: np.stack([table[metric].to_numpy(dtype=np.float64) for table in of_seeds])
            for variant, of_seeds in tables.items()
        },
        counts=scored * updates if metric == LOSS else np.full(len(steps), scored),
        parameters={
            variant: np.array([c["variants"][variant]["parameters"] for c in contents])
            for variant in VARIANTS
        },
    )


def _theory(town: Path, names: Mapping[str, str]) -> Row:
    """Return the row of what a model that knows the town by heart reaches: the mean of log(1/n)."""
    n_children = read_examples(town)["n_children"].to_numpy()
    row = {**names, "model": "", "method": "theory", "setting": "always", "metric": LIKELIHOOD}
    return row | {"value": -np.log(n_children).mean(), "n": len(n_children), "unit": "nats"}
