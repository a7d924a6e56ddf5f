"""Which mask and score are best at which temperature: Xu et al. (2023), Figures 4a and 4b.

From stored neighbors, k as published: the perplexity on test at every temperature of a grid and at
temperature 1, with lmbda tuned on validation at each; and the temperature that validation chooses.
All masks and scores of a share have the same temperatures, in units of the mean squared distance
of its real neighbors.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import tidy
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.masks import MODES, WHOLE, Masks, Mode, Tempered
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM
from knnlm.retrieval.tuning import axes_of
from knnlm.runtime.logs import LOGGER

EXPERIMENT = "temperature"
COORDINATES = ("temperature", "lmbda")
CODES, MASKED, REAL = (mode.name for mode in MODES)  # by what they are compared

Nll = NDArray[np.float64]


class Curve(NamedTuple):
    """One mask and score of a share at all temperatures; the first is the published one."""

    tempered: Tempered
    lmbdas: NDArray[np.float64]
    nlls: list[Nll]
    best: int


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the rows of each share, mask and score, and their curves over temperature.

    Args:
        inputs: queries, neighbors and tuned points of the baseline, and `shares`.
        settings: corpus, lm_seeds, baseline, datastores, approximate_search and temperature.

    Returns:
        `table`, and `grid`: perplexities on test, with the columns temperature (relative) and
        lmbda; `setting` says share, mask and score, and whether it is temperature 1 or the best.
    """
    run, (folder,) = ScoredRun.of(EXPERIMENT, inputs, settings), inputs["shares"]
    masks = Masks(run, run.seeds[0], folder, settings["approximate_search"])
    test = masks.scored["test"]
    rows, points = test.rows("lm", "no datastore", test.nll, against={}), []
    effects: dict[str, dict[str, Nll]] = {}
    for share in (*map(str, settings[EXPERIMENT]["shares"]), WHOLE):
        LOGGER.info("share %s", share)
        curves = _curves(masks, share, settings)
        rows += _rows(masks, share, curves)
        points += _points(masks, share, curves)
        effects[share] = {mode.name: curve.nlls[curve.best] for mode, curve in curves.items()}
    rows += _interactions(masks, effects)
    return {"table": table_of(rows), "grid": tidy(points, coordinates=COORDINATES)}


def _curves(masks: Masks, share: str, settings: Mapping[str, Any]) -> dict[Mode, Curve]:
    """Return each mask and score of a share at the same temperatures."""
    baseline = settings["baseline"]
    relative, lmbdas = axes_of(
        baseline["grid"] | {"temperatures": settings[EXPERIMENT]["temperatures"]}
    )
    curves, unit = {}, None
    for mode in reversed(MODES):  # the real one says the unit
        of_mode = masks.tempered(
            share, mode, relative=relative, fixed=[baseline["published"]["temperature"]], unit=unit
        )
        unit = of_mode.unit
        chosen, nll = of_mode.best(lmbdas)
        nlls = [of_mode.nll(place, lmbda) for place, lmbda in enumerate(chosen)]
        curves[mode] = Curve(of_mode, chosen, nlls, int(nll.argmin()))
    return curves


def _rows(masks: Masks, share: str, curves: Mapping[Mode, Curve]) -> list[Row]:
    """Return the rows at the temperature that validation chose, and what it was."""
    test, validation, rows = masks.scored["test"], masks.scored["validation"], []
    best = {mode.name: curve.nlls[curve.best] for mode, curve in curves.items()}
    for mode in MODES:
        curve, setting = curves[mode], f"{share}/{mode.name}"
        against = {"lm": test.nll, "temperature_1": curve.nlls[0]}
        against |= {name: best[name] for name in (MASKED, REAL) if name != mode.name}
        rows += test.rows(KNN_LM, setting, best[mode.name], against=against)
        temperature = curve.tempered.temperatures[curve.best]
        chosen = {
            ("temperature", "squared distance"): temperature,
            ("temperature_relative", "mean squared distance"): temperature / curve.tempered.unit,
            ("lmbda", "weight on kNN"): curve.lmbdas[curve.best],
        }
        names = validation.row_names(KNN_LM, setting) | {"n": len(validation.places)}
        rows += [
            {**names, "metric": metric, "value": value, "unit": unit}
            for (metric, unit), value in chosen.items()
        ]
    return rows


def _points(masks: Masks, share: str, curves: Mapping[Mode, Curve]) -> list[Row]:
    """Return the points of the curves of a share, and of the LM, which has no temperature."""
    test, points = masks.scored["test"], []
    for mode, curve in curves.items():
        relative = curve.tempered.temperatures / curve.tempered.unit
        at = {"": range(1, len(relative)), "/temperature 1": [0], "/best": [curve.best]}
        for kind, places in at.items():
            names = test.row_names(KNN_LM, f"{share}/{mode.name}{kind}")
            for place in places:
                level = test.text.perplexities(names, curve.nlls[place])[0]
                point = {"temperature": relative[place], "lmbda": curve.lmbdas[place]}
                points.append(level | point)
    names = test.row_names("lm", f"{share}/no datastore")
    return [*points, test.text.perplexities(names, test.nll)[0]]


def _interactions(masks: Masks, best: Mapping[str, Mapping[str, Nll]]) -> list[Row]:
    """Return whether approximation helps more in a share, and by its mask or by its score."""
    test, rows = masks.scored["test"], []
    for share, nlls in best.items():
        by_mask, by_score = nlls[MASKED] - nlls[REAL], nlls[CODES] - nlls[MASKED]
        names = test.row_names(KNN_LM, f"{share}/by mask minus by score")
        rows.append(test.text.mean_difference(names, by_mask - by_score, against=REAL))
        if share == WHOLE:
            continue
        for mode in (CODES, MASKED):
            names = test.row_names(KNN_LM, f"{share} minus {WHOLE}/{mode}")
            gain, of_whole = (one[mode] - one[REAL] for one in (nlls, best[WHOLE]))
            rows.append(test.text.mean_difference(names, gain - of_whole, against=REAL))
    return rows
