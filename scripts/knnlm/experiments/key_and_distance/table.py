"""Which hidden state and which distance are best: Xu et al. (2023), Table 1.

Keys att, the input of the last FFN, and ffn, the input of the output layer; squared L2 distance
and inner product. Each kNN alone, mixed with the LM, and as the oracle that takes for each token
the better of the two.
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
from knnlm.retrieval.interpolation import knn_log_probs, mean_nll, mix_log_probs
from knnlm.retrieval.tuning import Point

EXPERIMENT = "key_and_distance"
ALONE, ORACLE = "knn", "oracle"  # methods in tables
TUNED, OF_TEST, PUBLISHED = "tuned", "lmbda_of_test", "published_lmbda_of_test"

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
    scored = run.scored(run.seeds[0], searched_in=block["keys"].values())
    published = Point(**run.baseline["published"])
    found = [
        _combination(
            f"{key}_{metric}", run.retrieved(scored, datastore=store, index=index), published
        )
        for key, store in block["keys"].items()
        for metric, index in block["indexes"].items()
    ]
    rows = scored.rows("lm", "no datastore", scored.nll, against={})
    for one in found:
        rows += _rows(scored, one, found)
    return {"table": table_of(rows)}


def _combination(name: str, retrieved: Retrieved, published: Point) -> Combination:
    """Return a key and a distance at its tuned point, and with lmbdas of the reported split."""
    lm, knn = -retrieved.scored.nll, _log_probs(retrieved, retrieved.tuned.point)
    nlls = {(KNN_LM, TUNED): retrieved.nll, (ORACLE, TUNED): -np.fmax(lm, knn)}
    for choice, probs in {OF_TEST: knn, PUBLISHED: _log_probs(retrieved, published)}.items():
        lmbda = best_lmbda(lm, probs, retrieved.tuned.grid["lmbdas"])
        nlls[KNN_LM, choice] = -mix_log_probs(lm, probs, lmbda)
    return Combination(name, retrieved, knn, nlls)


def _log_probs(retrieved: Retrieved, point: Point) -> NDArray[np.float64]:
    found, nearest = retrieved.found, slice(0, point.k)
    return knn_log_probs(
        found.distances[:, nearest],
        found.values[:, nearest],
        retrieved.scored.targets,
        temperature=point.temperature,
    )


def best_lmbda(
    lm_log_probs: NDArray[np.float64], log_probs: NDArray[np.float64], lmbdas: list[float]
) -> float:
    """Return the lmbda with the least mean nll of the mixture; of equal ones, the first."""
    return lmbdas[int(mean_nll(lm_log_probs, np.exp(log_probs)[None], lmbdas).argmin())]


def _rows(scored: ScoredSplit, one: Combination, every: list[Combination]) -> list[Row]:
    """Return the rows of a key and a distance: tuned, alone, mixed and as an oracle."""
    rows = one.retrieved.tuned_rows(one.name)
    for (method, choice), nll in one.nlls.items():
        others = {o.name: o.nlls[method, choice] for o in every if o.name != one.name}
        setting = one.name if choice == TUNED else f"{one.name}/{choice}"
        rows += scored.rows(method, setting, nll, against={"lm": scored.nll, **others})
    return rows + _alone(scored, one)


def _alone(scored: ScoredSplit, one: Combination) -> list[Row]:
    """Return the perplexity of kNN alone, and the share of targets that no neighbor has.

    With one such target it is infinite; over the others it is given beside it.
    """
    names, found = scored.row_names(ALONE, one.name), np.isfinite(one.knn)
    nll = np.where(found, -one.knn, np.inf)
    level = {"metric": "perplexity_per_token", "value": perplexity_per_token(nll)}
    where = {"metric": "perplexity_where_found", "value": perplexity_per_token(nll[found])}
    return [
        names | level | {"n": len(nll), "unit": "perplexity"},
        names | where | {"n": int(found.sum()), "unit": "perplexity"},
        scored.text.share(names, "share_without_target", ~found),
    ]
