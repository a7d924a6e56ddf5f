"""Where retrieval helps, and what its neighbors look like.

Khandelwal et al. (2020), Section 6, Figure 6 and Tables 6 to 9: rare patterns, such as names and
facts, and near-duplicates of training text. Gains over the LM by how often train has the target
word and the tokens before it, by the longest common suffix with a context of train, and the
examples of which p_kNN exceeds p_LM most. Beside them, as a control of ours, an LM trained longer.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.rare_patterns.classes import (
    FREQUENT,
    RARE,
    between,
    context_masks,
    counts_in_train,
    suffix_masks,
    suffixes,
    target_masks,
)
from knnlm.experiments.rare_patterns.examples import Examples, examples_of
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM, Retrieved, ScoredSplit
from knnlm.text.tokenizer import read_tokenizer
from knnlm.text.tokens import load_tokens

EXPERIMENT = "rare_patterns"
CONTROL = "control"
GAINS, OTHERS = "largest gains", "others"  # settings in the table
NEAR = "share_of_near_duplicates"


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return changes against the LM by class of context, and examples of the first LM seed.

    Args:
        inputs: queries of test, of the baseline's LM and of the control; neighbors and tuned
            points; text and tokens of the subject and of what the datastore holds; tokenizer.
        settings: corpus, lm_seeds, baseline, datastores and rare_patterns.

    Returns:
        `table`, and `examples`, a row for each neighbor of each example.

    Raises:
        ArtifactError: if folders belong to different models or seeds, or scored other positions.
    """
    run, own = ScoredRun.of(EXPERIMENT, inputs, settings), settings[EXPERIMENT]
    train = load_tokens(inputs["stored_tokens"][0], "train")
    test = load_tokens(inputs["tokens"][0], "test")
    first = run.scored(run.seeds[0])
    counts = counts_in_train(train, test, first.queries, longest=own["longest"])
    targets = target_masks(inputs["text"][0], inputs["stored_text"][0], test, first.queries)
    classes = Classes(
        {**targets, **context_masks(counts, own["contexts"]), **suffix_masks(counts)},
        counts,
        suffixes(counts) >= own["near_duplicate"],
    )
    rows: list[Row] = []
    for seed in run.seeds:
        scored = run.scored(seed)
        first.require_paired(scored)
        rows += _rows(run, scored, classes, own)
    shown = Examples(
        read_tokenizer(inputs["tokenizer"][0]), train, test, suffixes(counts), **own["examples"]
    )
    retrieved = run.retrieved(first)
    examples = examples_of(shown, retrieved, knn_probs(retrieved))
    return {"table": table_of(rows), "examples": examples}


class Classes(NamedTuple):
    """Classes of targets, the same for every LM.

    `masks` (n,) by name; `counts` (n, longest) of the context in train; `near` (n,), whether the
    context is a near-duplicate of one of train.
    """

    masks: Mapping[str, NDArray[np.bool_]]
    counts: NDArray[np.int64]
    near: NDArray[np.bool_]


def knn_probs(retrieved: Retrieved) -> NDArray[np.float64]:
    """Return p_kNN of each target at the tuned k and temperature; 0 without any neighbor."""
    return np.exp(np.nan_to_num(retrieved.knn_log_probs, nan=-np.inf))


def _rows(
    run: ScoredRun, scored: ScoredSplit, classes: Classes, own: Mapping[str, Any]
) -> list[Row]:
    """Return the rows of one LM seed: of kNN, and of the control if the seed has one."""
    retrieved, seed = run.retrieved(scored), scored.names["seed"]
    nlls, lm = {KNN_LM: retrieved.nll}, np.exp(-scored.nll)
    probs = {KNN_LM: knn_probs(retrieved)}
    control = run.baseline["control"]
    if control and seed in control["seeds"]:
        longer = run.scored(seed, model=run.datastores[control["datastore"]]["model"])
        scored.require_paired(longer)
        nlls[CONTROL], probs[CONTROL] = longer.nll, np.exp(-longer.nll)
    rows: list[Row] = []
    gains = {method: largest(p - lm, own["gains"]) for method, p in probs.items()}
    for method, nll in nlls.items():
        against = {"lm": scored.nll} | ({CONTROL: nlls[CONTROL]} if CONTROL in nlls else {})
        for name, baseline in against.items():
            if name != method:
                rows += _class_rows(scored, method, nll - baseline, classes, own, against=name)
        rows += _near_rows(scored, method, classes.near, gains[method])
    if CONTROL in nlls:
        names = scored.row_names(KNN_LM, f"{GAINS} minus those of the control")
        rows.append(_share(scored, names, classes.near, gains[KNN_LM], gains[CONTROL]))
    return rows


def _class_rows(
    scored: ScoredSplit,
    method: str,
    difference: NDArray[np.float64],
    classes: Classes,
    own: Mapping[str, Any],
    *,
    against: str,
) -> list[Row]:
    """Return a mean change in each class, and how much larger it is after rare contexts."""
    rows = [
        scored.text.mean_difference(
            scored.row_names(method, name), difference, against=against, mask=mask
        )
        for name, mask in classes.masks.items()
    ]
    for length in own["contexts"]:
        count = classes.counts[:, length - 1]
        pair = (between(count, RARE), between(count, FREQUENT))
        if all(mask.any() for mask in pair):
            names = scored.row_names(method, f"preceding {length}: 1-2 minus > 10")
            rows.append(
                scored.text.difference_of_classes(names, difference, *pair, against=against)
            )
    return rows


def largest(gains: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Return which are among a share of the numbers, the largest; of equal ones the first."""
    chosen = np.zeros(len(gains), dtype=bool)
    chosen[np.argsort(-gains, kind="stable")[: max(1, round(share * len(gains)))]] = True
    return chosen


def _near_rows(
    scored: ScoredSplit, method: str, near: NDArray[np.bool_], gains: NDArray[np.bool_]
) -> list[Row]:
    """Return the shares of near-duplicates among the largest gains and others, and by how much."""
    return [
        _share(scored, scored.row_names(method, GAINS), near, gains),
        _share(scored, scored.row_names(method, OTHERS), near, ~gains),
        _share(scored, scored.row_names(method, f"{GAINS} minus {OTHERS}"), near, gains, ~gains),
    ]


def _share(
    scored: ScoredSplit,
    names: Row,
    near: NDArray[np.bool_],
    among: NDArray[np.bool_],
    minus: NDArray[np.bool_] | None = None,
) -> Row:
    """Return the share of near-duplicates among some tokens, or how much it is above others'."""
    pairs = [(near & some, some) for some in (among, minus) if some is not None]
    shares = [float(inside.sum() / some.sum()) for inside, some in pairs]
    bootstrap = scored.text.bootstrap
    interval = (
        bootstrap.ratio(*pairs[0]) if minus is None else bootstrap.difference_of_ratios(*pairs)
    )
    value = shares[0] if minus is None else shares[0] - shares[1]
    ends = {"ci_low": interval.low, "ci_high": interval.high}
    n = int(sum(some.sum() for _, some in pairs))
    return dict(names) | {"metric": NEAR, "value": value, **ends, "n": n, "unit": "share"}
