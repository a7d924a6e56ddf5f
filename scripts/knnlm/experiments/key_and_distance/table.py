"""Which hidden state and which distance are best: Xu et al. (2023), Table 1.

Keys att, the input of the last FFN, and ffn, the input of the output layer; squared L2 distance
and inner product. Each kNN alone, mixed with the LM, and as the oracle that takes for each token
the better of the two. Temperature and k are tuned on validation, or as published, lmbda tuned on
validation, or in marked rows on the reported split.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.metrics import perplexity_per_token
from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mixture_weight import best_lmbda
from knnlm.retrieval.tuning import Point

EXPERIMENT = "key_and_distance"
ALONE, ORACLE = "knn", "oracle"  # methods in tables
TUNED, OF_TEST = "tuned", "lmbda_of_test"
PUBLISHED, PUBLISHED_OF_TEST = "temperature_1", "temperature_1_lmbda_of_test"

Nll = NDArray[np.float64]


class Combination(NamedTuple):
    """A key and a distance on test: what it is called, and nats by method and setting.

    `knn` (n,) is log p_kNN of the targets at the tuned k and temperature, -inf where no neighbor
    has the target.
    """

    name: str
    retrieved: Retrieved
    knn: NDArray[np.float64]
    nlls: dict[tuple[str, str], Nll]


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the rows of each key and distance, compared in pairs with the LM and each other.

    Args:
        inputs: queries, neighbors and tuned points of the datastores and indexes.
        settings: corpus, lm_seeds, baseline, datastores and key_and_distance.
    """
    run, block = ScoredRun.of(EXPERIMENT, inputs, settings), settings[EXPERIMENT]
    stores = {"att": run.baseline["datastore"], "ffn": block["ffn"]}
    of_both = {"searched_in": stores.values()}
    splits = [run.scored(run.seeds[0], split, **of_both) for split in ("validation", "test")]
    published = Point(**run.baseline["published"])
    found = []
    for key, store in stores.items():
        for metric, index in block["indexes"].items():
            named = {"datastore": store, "index": index}
            on_validation, on_test = (run.retrieved(scored, **named) for scored in splits)
            found.append(_combination(f"{key}_{metric}", on_validation, on_test, published))
    rows = splits[1].rows("lm", "no datastore", splits[1].nll, against={})
    for one in found:
        rows += _rows(splits[1], one, found)
    return {"table": table_of(rows)}


def _combination(
    name: str, on_validation: Retrieved, on_test: Retrieved, published: Point
) -> Combination:
    """Return a key and a distance with each choice of temperature and lmbda, by test's nats."""
    lm, lmbdas = -on_test.scored.nll, on_test.tuned.grid["lmbdas"]
    knn, at_1 = on_test.knn_log_probs, on_test.knn_log_probs_at(published)
    tried = -on_validation.scored.nll, on_validation.knn_log_probs_at(published)
    chosen = {
        OF_TEST: (knn, best_lmbda(lm, knn, lmbdas)),
        PUBLISHED: (at_1, best_lmbda(*tried, lmbdas)),
        PUBLISHED_OF_TEST: (at_1, best_lmbda(lm, at_1, lmbdas)),
    }
    nlls = {(KNN_LM, TUNED): on_test.nll}
    nlls |= {(KNN_LM, c): -mix_log_probs(lm, p, lmbda) for c, (p, lmbda) in chosen.items()}
    nlls |= {(ORACLE, c): -np.fmax(lm, probs) for c, probs in {TUNED: knn, PUBLISHED: at_1}.items()}
    return Combination(name, on_test, knn, nlls)


def _rows(scored: ScoredSplit, one: Combination, every: list[Combination]) -> list[Row]:
    """Return the rows of a key and a distance: tuned, alone, mixed and as an oracle."""
    rows = one.retrieved.tuned_rows(f"{one.name}/{TUNED}")
    for (method, choice), nll in one.nlls.items():
        others = {o.name: o.nlls[method, choice] for o in every if o.name != one.name}
        against = {"lm": scored.nll, **others}
        rows += scored.rows(method, f"{one.name}/{choice}", nll, against=against)
    return rows + _alone(scored, one)


def _alone(scored: ScoredSplit, one: Combination) -> list[Row]:
    """Return the perplexity of kNN alone, and the share of targets that no neighbor has.

    With one such target it is infinite; over the others it is given beside it.
    """
    names, found = scored.row_names(ALONE, f"{one.name}/{TUNED}"), np.isfinite(one.knn)
    nll = np.where(found, -one.knn, np.inf)
    level = {"metric": "perplexity_per_token", "value": perplexity_per_token(nll)}
    where = {"metric": "perplexity_where_found", "value": perplexity_per_token(nll[found])}
    return [
        names | level | {"n": len(nll), "unit": "perplexity"},
        names | where | {"n": int(found.sum()), "unit": "perplexity"},
        scored.text.share(names, "share_without_target", ~found),
    ]
