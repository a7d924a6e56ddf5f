"""Whether a datastore adapts an LM to a domain that it was not trained on.

Khandelwal et al. (2020), Table 4 and Figure 5 (right): the LM of one corpus on another, alone, and
with the datastore of that corpus, beside an LM trained there; and perplexity over lmbda in and out
of domain. The control is ours: the LM fine-tuned on that corpus for as many FLOPs as its datastore
costs to build and to search.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import tidy
from knnlm.experiments.domain_adaptation.costs import cost_rows
from knnlm.experiments.domain_adaptation.curves import Curve
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.retrieval.tuning import Point

EXPERIMENT = "domain_adaptation"
THERE, FINE_TUNED = "in_domain_lm", "fine_tuned"  # methods in the table
IN, OUT = "in domain", "out of domain"
SPLITS = ("validation", "test")

Scored = Mapping[str, ScoredSplit]  # by split


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return every method on the second corpus, and perplexity over lmbda in both domains.

    Args:
        inputs: queries of all LMs, neighbors and tuned, of the second corpus and the first LM
            seed; home_queries, home_neighbors and home_tuned of the LM where it was trained, on
            validation; models, it and the fine-tuned ones, and the datastore.
        settings: corpus, lm_seeds, baseline, datastores, indexes and domain_adaptation.

    Returns:
        `table`, and `grid` with the column lmbda, on validation.

    Raises:
        ArtifactError: if folders belong to different models or seeds, or scored other positions.
    """
    own, stores = settings[EXPERIMENT], settings["datastores"]
    there, at_home = ({"corpus": stores[own[key]]["corpus"]} for key in ("datastore", "home"))
    run = ScoredRun.of(EXPERIMENT, inputs, settings | there)
    home_inputs = {name: inputs[f"home_{name}"] for name in ("queries", "neighbors", "tuned")}
    home = ScoredRun.of(EXPERIMENT, home_inputs, settings | at_home)
    model, seed = stores[own["home"]]["model"], run.seeds[0]
    lm = _scored(run, model)
    retrieved = {split: run.retrieved(lm[split], datastore=own["datastore"]) for split in SPLITS}
    others = {THERE: _scored(run, own["trained_there"], like=lm)}
    tried = {name: _scored(run, name, like=lm) for name in own["fine_tuned"]}
    chosen = min(tried, key=lambda name: tried[name]["validation"].nll.mean())
    others[FINE_TUNED] = tried[chosen]
    rows = _rows(lm, others, retrieved, own["published"], index=run.baseline["index"])
    rows += [row for name, scored in tried.items() for row in _tried(scored["validation"], name)]
    rows += cost_rows(inputs, settings, [*retrieved.values()], fine_tuned=chosen)
    home_scored = home.scored(seed, "validation", model=model)
    home_found = home.retrieved(home_scored, datastore=own["home"])
    curves = [Curve(IN, home_found), Curve(OUT, retrieved["validation"])]
    rows += [row for curve in curves for row in (*_lmbda(curve), curve.best())]
    levels = [_level(scored["validation"], method) for method, scored in others.items()]
    grid = [row for curve in curves for row in curve.rows()] + levels
    return {"table": tidy(rows), "grid": tidy(grid, coordinates=("lmbda",))}


def _scored(run: ScoredRun, model: str, *, like: Scored | None = None) -> Scored:
    """Return what an LM scored of each split, the same tokens as another LM."""
    found = {split: run.scored(run.seeds[0], split, model=model) for split in SPLITS}
    for split, scored in (like or {}).items():
        scored.require_paired(found[split])
    return found


def _rows(
    lm: Scored,
    others: Mapping[str, Scored],
    retrieved: Mapping[str, Retrieved],
    published: Mapping[str, Any],
    *,
    index: str,
) -> list[Row]:
    """Return the perplexities on both splits, and the paired differences of every two methods."""
    rows: list[Row] = []
    for split, found in retrieved.items():
        of_lm, nlls = lm[split], {method: scored[split].nll for method, scored in others.items()}
        knn = {"tuned": found.nll, "published": of_lm.knn_nll(found.found, Point(**published))}
        rows += of_lm.rows("lm", "", of_lm.nll, against={})
        for method, scored in others.items():
            against = {"lm": of_lm.nll, **nlls}
            rows += scored[split].rows(method, "", nlls[method], against=against)
        for name, nll in knn.items():
            against = {"lm": of_lm.nll, **nlls}
            rows += of_lm.rows(KNN_LM, f"{index}/{name}", nll, against=against)
    return rows


def _tried(scored: ScoredSplit, name: str) -> list[Row]:
    """Return the level of one learning rate of the fine-tuning, among which validation chose."""
    return scored.text.perplexities(scored.row_names(FINE_TUNED, f"tried: {name}"), scored.nll)[:1]


def _level(scored: ScoredSplit, method: str) -> Row:
    return scored.text.perplexities(scored.row_names(method, OUT), scored.nll)[0]


def _lmbda(curve: Curve) -> list[Row]:
    """Return the settings that validation chose in a domain."""
    return curve.retrieved.tuned_rows(f"{curve.domain}/tuned")
