"""Whether an LM generalizes from over-specified facts, and whether retrieval helps.

Chiang et al. (2024), Section 4, Figures 1 and 3, Tables 5 and 6: a model is fine-tuned on
sentences that tell of a child with a detail of the parent, and asked for the child without it. A
perfect one gives each of n children the log-likelihood log(1/n).

lmbda and the temperature were fixed before the first run, the temperature by an earlier prototype
(data/README.md). Rows of one seed have intervals from a bootstrap over villagers (at least 30);
rows of all seeds have Student's t intervals, also of the differences of two methods, which are
taken within each seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.overspecification.names import ALL, FINE_TUNING, METRIC, MLP
from knnlm.experiments.overspecification.rows import FineTuned, label, read_fine_tuned
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.town_tables import first_examples, seeds_and_mean, shown_name
from knnlm.runtime.places import places
from knnlm.text.macondo.dataset import KIND as MACONDO
from knnlm.text.macondo.dataset import read_examples
from knnlm.text.macondo.town import SPLITS

EXPERIMENT = "overspecification"
CURVES = ("lm", "knn_lm")


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the kept points, the curves over epochs, and examples of sentences.

    Args:
        inputs: macondo: the towns, all of one size; fine_tuned: of each compared model
            and seed; mlp: of each of these and each of the MLP's settings.
        settings: corpus (on which models of our own were trained), experiment_seeds,
            overspecification, fine_tunings.

    Returns:
        table and curves, tidy, the second with the columns epoch and n_children (0: all);
        examples: sentences as in Table 6 with the columns split, attribute, n_children, sentence.

    Raises:
        ArtifactError: if a folder is missing, or folders do not belong together.
    """
    block, seeds = settings["overspecification"], settings["experiment_seeds"]
    towns = places(dict.fromkeys(inputs["macondo"]), kind=MACONDO, by=("town", "seed"))
    tuned = places(inputs["fine_tuned"], kind=FINE_TUNING, by=("fine_tuning", "seed"))
    mlps = places(inputs["mlp"], kind=MLP, by=("fine_tuning", "mlp", "seed"))
    first = towns[settings["fine_tunings"][block["compare"][0]]["town"], seeds[0]]
    names = {"experiment": EXPERIMENT, "corpus": settings["corpus"]}
    rows = list(_references(first, names))
    curves: list[Row] = []
    for name in block["compare"]:
        fine_tuning = settings["fine_tunings"][name]
        of_model = names | {"model": shown_name(name, fine_tuning)}
        compared = [
            read_fine_tuned(
                tuned[name, seed],
                {mlp: mlps[name, mlp, seed] for mlp in block["mlps"]},
                towns[fine_tuning["town"], seed],
                names=of_model | {"seed": seed},
                settings=block,
                fine_tuning=fine_tuning,
            )
            for seed in seeds
        ]
        for one in compared:
            rows += [*one.rows(), *one.facts()]
        curves += _curves(of_model, compared)
    table = tidy(rows)
    return {
        "table": pd.concat([table, means_over_seeds(table)], ignore_index=True),
        "curves": tidy(curves, coordinates=("epoch", "n_children")),
        "examples": first_examples(read_examples(first), column="sentence"),
    }


def _references(macondo: Path, names: Row) -> Iterator[Row]:
    """Yield what a perfect model reaches, log(1/n), and a guess among all children."""
    n_children = read_examples(macondo)["n_children"].to_numpy()
    named = {**names, "split": "test", "metric": METRIC}
    for group in (ALL, *np.unique(n_children).tolist()):
        inside = n_children[(n_children == group) | (group == ALL)]
        levels = {"theory": np.log(1 / inside).mean(), "chance": np.log(1 / len(n_children))}
        for method, value in levels.items():
            row = {"method": method, "setting": label("always", group), "value": float(value)}
            yield {**named, **row, "n": len(inside), "unit": "nats"}


def _curves(names: Row, compared: Sequence[FineTuned]) -> Iterator[Row]:
    """Yield mean log-likelihoods over epochs, for each seed and for their mean."""
    first = compared[0]
    for place, step in enumerate(first.contents["points"]):
        for split in SPLITS:
            scored = {one.names["seed"]: one.fixed(one.scores[place], split) for one in compared}
            for group, mask in first.groups.items():
                for method in CURVES:
                    row = {"split": split, "method": method, "metric": METRIC, "unit": "nats"}
                    row |= {"epoch": step / first.contents["per_epoch"], "n_children": group}
                    values = {seed: of[method][mask].mean() for seed, of in scored.items()}
                    yield from seeds_and_mean({**names, **row}, values, n=int(mask.sum()))
