"""Whether an LM generalizes from over-specified facts, and whether retrieval helps.

Chiang et al. (2024), Section 4, Figures 1 and 3, Tables 5 and 6: a model is fine-tuned on
sentences that tell of a child with a detail of the parent, and asked for the child without it. A
perfect one gives each of n children the log-likelihood log(1/n).

lmbda and the temperature were fixed before the first run. Rows of one seed have intervals from a
bootstrap over villagers (at least 30); rows of all seeds have Student's t intervals, also of the
differences of two methods, which are taken within each seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from knnlm.evidence.intervals import student_interval
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.overspecification.names import ALL, METRIC
from knnlm.experiments.overspecification.runs import Row, Run, label, read_run
from knnlm.text.macondo.dataset import read_examples
from knnlm.text.macondo.town import SPLITS
from knnlm.text.macondo.villagers import CLAUSES

EXPERIMENT = "overspecification"
CURVES = ("lm", "knn_lm")


def evaluate_overspecification(
    *,
    corpus: str,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    macondo: Sequence[Path],
    fine_tuned: Sequence[Path],
    mlp: Sequence[Path],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the table of the kept points, the curves over epochs, and examples of sentences.

    Args:
        corpus: on which models of our own were trained.
        settings: the block `overspecification` of the config.
        seeds: of towns and trainings.
        macondo: the town, for each of settings["compare"], for each seed; all of one size.
        fine_tuned: in the same order.
        mlp: in the same order.

    Returns:
        Two tidy tables, the second with the columns epoch and n_children (0: all), and sentences
        as in Table 6 with the columns split, attribute, n_children and sentence.

    Raises:
        ArtifactError: if folders do not belong together.
    """
    folders = iter(zip(macondo, fine_tuned, mlp, strict=True))
    rows = list(_references(macondo[0], corpus=corpus))
    curves: list[Row] = []
    for name in settings["compare"]:
        fine_tuning = settings["fine_tunings"][name]
        # Random weights must never pass for a pretrained model.
        model = f"{name} (random weights)" if fine_tuning["init"] == "random" else name
        runs = []
        for seed in seeds:
            town, tuned, replaced = next(folders)
            run = read_run(
                fine_tuned=tuned,
                mlp=replaced,
                macondo=town,
                names={"experiment": EXPERIMENT, "corpus": corpus, "model": model, "seed": seed},
                settings=settings,
                fine_tuning=fine_tuning,
            )
            rows += [*run.rows(), *run.facts()]
            runs.append(run)
        curves += _curves(runs)
    table = tidy(rows)
    table = pd.concat([table, means_over_seeds(table)], ignore_index=True)
    return table, tidy(curves, coordinates=("epoch", "n_children")), _sentences(macondo[0])


def _references(macondo: Path, *, corpus: str) -> Iterator[Row]:
    """Yield what a perfect model reaches, log(1/n), and a guess among all children."""
    n_children = read_examples(macondo)["n_children"].to_numpy()
    named = {"experiment": EXPERIMENT, "corpus": corpus, "split": "test", "metric": METRIC}
    for group in (ALL, *np.unique(n_children).tolist()):
        inside = n_children[(n_children == group) | (group == ALL)]
        levels = {"theory": np.log(1 / inside).mean(), "chance": np.log(1 / len(n_children))}
        for method, value in levels.items():
            row = {"method": method, "setting": label("always", group), "value": float(value)}
            yield {**named, **row, "n": len(inside), "unit": "nats"}


def _curves(runs: Sequence[Run]) -> Iterator[Row]:
    """Yield mean log-likelihoods over epochs, for each seed and for their mean."""
    first = runs[0]
    epochs = [step / first.contents["per_epoch"] for step in first.contents["points"]]
    for place, epoch in enumerate(epochs):
        for split in SPLITS:
            scored = [run.fixed(run.scores[place], split) for run in runs]
            for group, mask in first.groups.items():
                for method in CURVES:
                    values = np.array([scores[method][mask].mean() for scores in scored])
                    row = {"split": split, "method": method, "metric": METRIC, "unit": "nats"}
                    row |= {"epoch": epoch, "n_children": group}
                    for run, value in zip(runs, values, strict=True):
                        yield {**run.names, **row, "value": value, "n": int(mask.sum())}
                    if len(runs) > 1:
                        low, high = student_interval(values)
                        row |= {"seed": "all", "value": values.mean(), "n": len(runs)}
                        yield {**first.names, **row, "ci_low": low, "ci_high": high}


def _sentences(macondo: Path) -> pd.DataFrame:
    """Return the first example of each attribute, as a sentence of each split."""
    examples = read_examples(macondo)
    rows = []
    for attribute in CLAUSES:
        chosen = examples[examples["train_attribute"] == attribute].head(1)
        for example in chosen.to_dict("records"):
            for split in SPLITS:
                told = example.get(f"{split}_attribute", "")
                rows.append((split, told, example["n_children"], example[split]))
    return pd.DataFrame(rows, columns=["split", "attribute", "n_children", "sentence"])
