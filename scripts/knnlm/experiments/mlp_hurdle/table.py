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

from knnlm.evidence.scored_text import Row
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
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.town_tables import seeds_and_mean
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, require_origin
from knnlm.runtime.places import places
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
                column = dict(zip(self.seeds, values[:, place], strict=True))
                yield from seeds_and_mean(row | {"step": step}, column, n=self.counts[place])

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


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of means over parts of the training, and the curves.

    Settings of the first: early (the first half of the updates), whole, end (the last point).

    Args:
        inputs: of each seed the town macondo, the curves on_macondo, trained on that town, and
            the curves on_text.
        settings: corpus (of the text), experiment_seeds.

    Returns:
        table and curves, tidy, the second with the column step.

    Raises:
        ArtifactError: if a folder is missing, or curves are of another town or task.
    """
    seeds = settings["experiment_seeds"]
    towns = places(inputs["macondo"], kind=MACONDO, by=("seed",))
    folders = {
        LIKELIHOOD: places(inputs["on_macondo"], kind=KIND, by=("seed",)),
        LOSS: places(inputs["on_text"], kind=KIND, by=("seed",)),
    }
    for seed in seeds:
        origin, folder = identity(towns[seed], kind=MACONDO), folders[LIKELIHOOD][seed]
        require_origin(folder, kind=KIND, role="macondo", expected=origin)
    tasks = [
        read_curves(metric, {seed: found[seed] for seed in seeds}, corpus=corpus)
        for (metric, found), corpus in zip(
            folders.items(), ("macondo", settings["corpus"]), strict=True
        )
    ]
    table = tidy([row for task in tasks for row in task.summary()])
    sizes = tidy([row for task in tasks for row in task.sizes()])
    levels = tidy([_theory(towns[seeds[0]], tasks[0].names)])
    parts = [table, means_over_seeds(table), levels, sizes]
    return {
        "table": pd.concat(parts, ignore_index=True),
        "curves": tidy([row for task in tasks for row in task.points()], coordinates=("step",)),
    }


def read_curves(metric: str, folders: Mapping[int, Path], *, corpus: str) -> Curves:
    """Return the curves of one task from the artifacts of all seeds.

    Raises:
        ArtifactError: if a folder holds another metric, that of the other task.
    """
    contents = [read_manifest(folder, kind=KIND)["contents"] for folder in folders.values()]
    for folder, found in zip(folders.values(), contents, strict=True):
        if found["metric"] != metric:
            raise ArtifactError(f"expected {folder} to hold {metric}, got {found['metric']}")
    tables = {
        variant: [pd.read_parquet(folder / f"{variant}.parquet") for folder in folders.values()]
        for variant in VARIANTS
    }
    steps = tables[FULL][0]["step"].to_numpy(dtype=np.int64)
    scored = contents[0]["scored"]
    return Curves(
        names={"experiment": EXPERIMENT, "corpus": corpus, "model": MODEL, "split": SPLIT[metric]},
        metric=metric,
        seeds=[*folders],
        steps=steps,
        values={
            variant: np.stack([table[metric].to_numpy(dtype=np.float64) for table in of_seeds])
            for variant, of_seeds in tables.items()
        },
        counts=scored * np.diff(steps, prepend=0)
        if metric == LOSS
        else np.full(len(steps), scored),
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
