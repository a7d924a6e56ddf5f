"""The second column of Chiang et al. (2024), Table 2: Macondo, from the table of overspecification.

The paper does not say whether its perplexity is of the children's names or of every token of the
test sentences. Both are here: `child_perplexity`, exp of minus the mean log-likelihood of the
names, and `perplexity_per_token`. Nor does it say whether W is the LM's: there is an MLP for each
of its settings. Weights are the fixed ones; nothing was tuned.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from knnlm.evidence.intervals import student_interval
from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import COLUMNS

CORPUS = "macondo"
METRICS = ("child_perplexity", "perplexity_per_token")
MLP = "mlp_lm/"  # begins the names of their methods with an MLP; the settings of the MLP follow


def macondo_rows(overspecification: pd.DataFrame, *, experiment: str) -> list[Row]:
    """Return both perplexities of LM, kNN-LM and MLPs, and their changes against the LM.

    Changes are taken within a seed, a town and a training; those of several seeds have Student's
    t interval of the mean log ratio.

    Args:
        overspecification: the table of that experiment.
        experiment: the name that the rows get.
    """
    theirs = overspecification
    methods = theirs["method"].isin(["lm", "knn_lm"]) | theirs["method"].str.startswith(MLP)
    wanted = theirs["metric"].isin(METRICS) & methods
    found = theirs[wanted & (theirs["split"] == "test")].copy()
    found["experiment"], found["corpus"] = experiment, CORPUS
    found["method"] = found["method"].str.replace(MLP, "mlp/", regex=False)
    rows = found[list(COLUMNS)].to_dict("records")
    seeded = found[found["seed"] != "all"]
    for _, group in seeded.groupby(["model", "setting", "metric"], sort=False):
        rows += _changes(group)
    return rows


def _changes(group: pd.DataFrame) -> Iterator[Row]:
    """Yield the change against the LM for each seed, and for all of them if there are several."""
    first = group.iloc[0]
    names = {name: first[name] for name in ("experiment", "corpus", "model", "split", "setting")}
    names |= {"metric": f"{first['metric']}_change_vs_lm", "unit": "percent"}
    logs = np.log(group.pivot(index="seed", columns="method", values="value"))
    for method in logs.columns.drop("lm"):
        ratios = logs[method] - logs["lm"]
        n = int(group.loc[group["method"] == method, "n"].iloc[0])
        for seed, ratio in ratios.items():
            value = float(100 * np.expm1(ratio))
            yield names | {"method": method, "seed": seed, "value": value, "n": n}
        if len(ratios) > 1:
            value, low, high = 100 * np.expm1([ratios.mean(), *student_interval(ratios.to_numpy())])
            ends = {"value": value, "ci_low": low, "ci_high": high}
            yield names | {"method": method, "seed": "all", **ends, "n": len(ratios)}
