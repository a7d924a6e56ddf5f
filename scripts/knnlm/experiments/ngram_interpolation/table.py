"""Whether an n-gram LM of the same text would do in the place of retrieval.

Khandelwal et al. (2020), Section 6 and Figure 7: n-gram LMs of orders 2 to 10, mixed with the LM.
Ours beside it: the n-gram LM mixed with the LM and its neighbors, to see what is left.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import Interval
from knnlm.evidence.scored_text import Row
from knnlm.experiments.ngram_interpolation.counting import load_ngrams
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.mixed import SPLITS, BySplit, MixedSeed, Mixture
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM
from knnlm.runtime.artifacts import read_manifest

NGRAM, KNN_NGRAM, ALONE = "ngram", "knn_lm_ngram", "ngram_alone"  # methods in tables
BEST = "best order"  # by validation


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment.

    Args:
        inputs: ngrams; queries of the baseline's LM, neighbors and tuned points.
        settings: corpus, lm_seeds, baseline and datastores.

    Raises:
        ArtifactError: if the n-grams are of another text than the queries.
    """
    run = ScoredRun.of("ngram_interpolation", inputs, settings)
    (folder,) = inputs["ngrams"]
    tokens = read_manifest(inputs["queries"][0], kind="queries")["made_from"]["tokens"]
    ngrams = {split: load_ngrams(folder, split, tokens=tokens) for split in SPLITS}
    rows: list[Row] = []
    for seed in run.seeds:
        of_seed = MixedSeed.of(run, seed)
        targets = {split: _targets(of_seed, split) for split in SPLITS}
        by_order = {
            order: {split: ngrams[split][order][targets[split]] for split in SPLITS}
            for order in ngrams["test"]
        }
        if not rows:  # n-grams alone are the same for all LMs
            rows += _alone_rows(of_seed, by_order)
        rows += of_seed.baseline_rows() + _mixed_rows(of_seed, by_order)
    return {"table": table_of(rows)}


def _targets(of_seed: MixedSeed, split: str) -> NDArray[np.int64]:
    """Return the places of the scored targets in the stream of a split."""
    scored = of_seed.scored[split]
    return scored.queries.positions[scored.places] + 1


def _alone_rows(of_seed: MixedSeed, by_order: Mapping[int, BySplit]) -> list[Row]:
    rows: list[Row] = []
    for order, found in by_order.items():
        for split, scored in of_seed.scored.items():
            names = scored.row_names(ALONE, f"order {order}") | {"model": "", "seed": ""}
            rows += scored.text.perplexities(names, -found[split])
    return rows


def _mixed_rows(of_seed: MixedSeed, by_order: Mapping[int, BySplit]) -> list[Row]:
    """Return the rows of every order with the LM and with the kNN-LM, the best order once more."""
    pairs = {
        order: (
            Mixture({**of_seed.lm, NGRAM: found}),
            Mixture({**of_seed.lm_and_knn, NGRAM: found}),
        )
        for order, found in by_order.items()
    }
    best = min(pairs, key=lambda order: pairs[order][0].nll("validation").mean())
    rows: list[Row] = []
    named = {f"order {order}": order for order in pairs} | {BEST: best}
    for setting, order in named.items():
        alone, with_knn = pairs[order]
        rows += of_seed.rows(NGRAM, setting, alone)
        rows += of_seed.rows(KNN_NGRAM, setting, with_knn, against={NGRAM: alone})
        rows.append(share_of_gain(of_seed, setting, alone))
    validation = of_seed.scored["validation"]
    names = validation.row_names(NGRAM, BEST)
    counted = {"metric": "order", "value": best, "n": len(validation.places), "unit": "tokens"}
    return [*rows, names | counted]


def share_of_gain(of_seed: MixedSeed, setting: str, mixture: Mixture) -> Row:
    """Return the gain in perplexity of a mixture over that of the kNN-LM, both against the LM.

    Documents are resampled for all three together. It says something only where kNN gains.
    """
    scored, nlls = of_seed.scored["test"], of_seed.baselines("test")
    per_token = (nlls["lm"], nlls[KNN_LM], mixture.nll("test"))

    def share(*means: NDArray[np.float64]) -> NDArray[np.float64]:
        lm, knn_lm, mixed = np.exp(means)
        return (lm - mixed) / (lm - knn_lm)

    interval: Interval = scored.text.bootstrap.of_means(share, *per_token)
    return scored.row_names(NGRAM, setting) | {
        "metric": "share_of_knn_gain",
        "value": float(share(*(nll.mean() for nll in per_token))),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n": len(scored.places),
        "unit": "share",
    }
