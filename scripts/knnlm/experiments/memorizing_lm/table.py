"""Whether an LM that has memorized its training data does what retrieval does.

Khandelwal et al. (2020), Section 6 and Figure 8, and the overfitted LM of Xu et al. (2023): the LM
is trained on without dropout; alone it is worse, and mixed in it helps less than its neighbors.
Beside them stands, as a control of ours, kNN at the weight that the memorizing LM gets.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import tidy
from knnlm.experiments.memorizing_lm.epochs import Losses, losses_of
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import KNN_LM, ScoredSplit
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mixture_weight import best_lmbda
from knnlm.runtime.places import places
from knnlm.text.tokens import load_tokens

EXPERIMENT = "memorizing_lm"
ALONE, MIXED = "memorizing_lm", "lm_with_memorizing_lm"  # methods in the table
OF_MODEL = ("model", "seed")  # names of its artifact
TUNED, SAME_WEIGHT = "tuned", "at the weight of the memorizing LM"


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return perplexities on test of the first LM seed, and training losses by epoch.

    Args:
        inputs: queries of the baseline's LM and of the memorizing one on both splits, neighbors
            and tuned points, models with the control, and the tokens that they were trained on.
        settings: corpus, lm_seeds, baseline, datastores and memorizing_lm.

    Returns:
        `table`, and `epochs` with the column epoch, counted from 1.

    Raises:
        ArtifactError: if folders belong to different models or seeds, or scored other positions.
    """
    run = ScoredRun.of(EXPERIMENT, inputs, settings)
    model, seed = settings[EXPERIMENT]["model"], run.seeds[0]
    trained, curves = _trainings(run, inputs, model=model, seed=seed)
    return {"table": tidy(_on_test(run, model, seed) + trained), "epochs": curves}


def _on_test(run: ScoredRun, model: str, seed: int) -> list[Row]:
    """Return the rows of LM, memorizing LM, their mixture and kNN on test, compared in pairs."""
    lm, alone = (run.scored(seed, model=name) for name in (None, model))
    on_validation = [run.scored(seed, "validation", model=name) for name in (None, model)]
    for one, other in ((lm, alone), on_validation):
        one.require_paired(other)
    retrieved = run.retrieved(lm)
    log_probs = (-one.nll for one in on_validation)
    weight = best_lmbda(*log_probs, retrieved.tuned.grid["lmbdas"])
    at_weight = lm.knn_nll(retrieved.found, retrieved.tuned.point._replace(lmbda=weight))
    mixed = mixture(lm, alone, weight)
    against = {"lm": lm.nll}
    rows = lm.rows("lm", "", lm.nll, against={})
    rows += alone.rows(ALONE, "", alone.nll, against=against)
    rows += retrieved.rows(TUNED, against=against)
    rows += lm.rows(KNN_LM, SAME_WEIGHT, at_weight, against=against)
    against |= {KNN_LM: retrieved.nll, "knn_lm_at_its_weight": at_weight}
    rows += lm.rows(MIXED, TUNED, mixed, against=against)
    chosen = {"split": "validation", "metric": "lmbda", "value": weight}
    of_whom = {"n": on_validation[0].queries.n_queries, "unit": "weight on the memorizing LM"}
    return [*rows, lm.row_names(MIXED, TUNED) | chosen | of_whom]


def mixture(lm: ScoredSplit, other: ScoredSplit, weight: float) -> NDArray[np.float64]:
    """Return the nll (n,), in nats, of (1 - weight) p_LM + weight p_other."""
    return -mix_log_probs(-lm.nll, -other.nll, weight)


def _trainings(
    run: ScoredRun, inputs: Inputs, *, model: str, seed: int
) -> tuple[list[Row], pd.DataFrame]:
    """Return how far each LM was trained, and its training losses by epoch."""
    (tokens,), models = inputs["tokens"], places(inputs["models"], kind="model", by=OF_MODEL)
    epoch, control = load_tokens(tokens, "train").n_tokens, run.baseline["control"]
    names = {"lm": run.model, ALONE: model}
    if control and seed in control["seeds"]:
        names["control"] = run.datastores[control["datastore"]]["model"]
    found = {m: losses_of(models, name, seed, epoch=epoch) for m, name in names.items()}
    rows: list[Row] = []
    curves: list[Row] = []
    for method, losses in found.items():
        named = {**run.names, "split": "train", "seed": seed, "method": method}
        named |= {"model": names[method]}
        rows += _far(named, losses, epoch)
        curves += _curve(named, losses)
        if method != ALONE:
            less = {"metric": f"train_loss_vs_{method}", "value": found[ALONE].last - losses.last}
            less |= {"method": ALONE, "model": model, "n": epoch, "unit": "nats per token"}
            rows.append(named | less)
    return rows, tidy(curves, coordinates=("epoch",))


def _far(named: Row, losses: Losses, epoch: int) -> list[Row]:
    """Return how far a training went: its loss over the last epoch, and what it read."""
    numbers = {
        ("train_loss", "nats per token"): losses.last,
        ("tokens_read", "tokens"): losses.read,
        ("epochs", "passes over train"): losses.read / epoch,
    }
    return [
        named | {"metric": metric, "value": value, "n": epoch, "unit": unit}
        for (metric, unit), value in numbers.items()
    ]


def _curve(named: Row, losses: Losses) -> list[Row]:
    shared = named | {"metric": "train_loss", "unit": "nats per token"}
    points = zip(losses.epochs, losses.losses, losses.tokens, strict=True)
    return [shared | {"epoch": epoch, "value": value, "n": n} for epoch, value, n in points]
