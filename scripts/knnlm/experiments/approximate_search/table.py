"""Whether approximate search makes kNN-LMs better: Xu et al. (2023), Table 3 and Figure 3.

For each share of the datastore, each mask and each score, k as published: at temperature 1 with
lmbda tuned on validation, and with lmbda tuned on the reported split, as the paper did; and with
temperature and lmbda tuned on validation for each. Exact search in fp16, the paper's, stands
beside that in fp32.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.masks import IN_HALF, MODES, WHOLE, Masks, Mode, Tempered
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM
from knnlm.retrieval.tuning import axes_of
from knnlm.runtime.logs import LOGGER

EXPERIMENT = "approximate_search"
ORACLE = "oracle"
PUBLISHED, OF_TEST, TUNED = "temperature_1", "temperature_1_lmbda_of_test", "tuned"
REFERENCE = MODES[-1]  # real mask, real score

Nll = NDArray[np.float64]


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return perplexities by share, mask, score and choice of temperature, compared in pairs.

    Args:
        inputs: queries, neighbors and tuned points of the baseline, and `shares`.
        settings: corpus, lm_seeds, baseline, datastores and approximate_search.
    """
    run, block = ScoredRun.of(EXPERIMENT, inputs, settings), settings[EXPERIMENT]
    (folder,) = inputs["shares"]
    masks = Masks(run, run.seeds[0], folder, block)
    text = masks.scored["test"]
    rows = text.rows("lm", "no datastore", text.nll, against={})
    before: dict[str, Nll] = {}
    for share in (*map(str, block["shares"]), WHOLE):
        LOGGER.info("share %s", share)
        of_share = ShareRows(masks, share, run.baseline)
        rows += of_share.rows(smaller=before)
        before = of_share.nlls
    return {"table": table_of(rows)}


class ShareRows:
    """The nll of each mask, score and choice in one share, and its rows."""

    def __init__(self, masks: Masks, share: str, baseline: Mapping[str, Any]) -> None:
        self.masks, self.share = masks, share
        self.relative, self.lmbdas = axes_of(baseline["grid"])
        self.published = baseline["published"]["temperature"]
        self.nlls: dict[str, Nll] = {}  # by mode and choice
        self.oracles: dict[str, Nll] = {}
        self.chosen: list[Row] = []
        for mode in [*MODES, *([IN_HALF] if share == WHOLE else [])]:
            self._score(mode)

    def _score(self, mode: Mode) -> None:
        tempered = self.masks.tempered(
            self.share, mode, relative=self.relative, fixed=[self.published]
        )
        for choice, place, lmbda in _choices(tempered, self.lmbdas):
            name = f"{mode.name}/{choice}"
            self.nlls[name] = tempered.nll(place, lmbda)
            self.chosen += self._chosen_rows(name, tempered.temperatures[place], lmbda)
            if choice != OF_TEST:
                self.oracles[name] = tempered.oracle(place)

    def _chosen_rows(self, name: str, temperature: float, lmbda: float) -> list[Row]:
        scored = self.masks.scored["validation"]
        names = scored.row_names(KNN_LM, f"{self.share}/{name}")
        if name.endswith(OF_TEST):
            names["split"] = "test"
        chosen = {
            ("temperature", "squared distance"): temperature,
            ("lmbda", "weight on kNN"): lmbda,
        }
        return [
            {**names, "metric": metric, "value": value, "n": len(scored.places), "unit": unit}
            for (metric, unit), value in chosen.items()
        ]

    def rows(self, *, smaller: Mapping[str, Nll]) -> list[Row]:
        """Return the rows of the share, compared with the LM, other modes and a smaller share."""
        scored = self.masks.scored["test"]
        rows = [*self.chosen, *self._recalls()]
        for method, nlls in ((KNN_LM, self.nlls), (ORACLE, self.oracles)):
            for name, nll in nlls.items():
                mode, choice = name.split("/")
                others = {one.name: nlls[f"{one.name}/{choice}"] for one in MODES[1:]}
                against = {"lm": scored.nll} | {n: o for n, o in others.items() if n != mode}
                if method == KNN_LM and name in smaller:
                    against["smaller_share"] = smaller[name]
                rows += scored.rows(method, f"{self.share}/{name}", nll, against=against)
        return rows

    def _recalls(self) -> list[Row]:
        """Return the share of the real neighbors that the masks of others let count."""
        scored = self.masks.scored["test"]
        modes = {mode.mask for mode in MODES} - {REFERENCE.mask}
        return [
            {
                **scored.row_names(KNN_LM, f"{self.share}/{mask}"),
                "metric": "recall",
                "value": self.masks.recall(self.share, mask),
                "n": len(scored.places),
                "unit": "share",
            }
            for mask in sorted(modes)
        ]


def _choices(tempered: Tempered, lmbdas: NDArray[np.float64]) -> Iterator[tuple[str, int, float]]:
    """Yield each choice: its name, the place of its temperature, and its lmbda."""
    on_validation, nll = tempered.best(lmbdas)
    of_test, _ = tempered.at(0).best(lmbdas, split="test")
    yield PUBLISHED, 0, float(on_validation[0])
    yield OF_TEST, 0, float(of_test[0])
    place = 1 + int(nll[1:].argmin())  # behind the published temperature
    yield TUNED, place, float(on_validation[place])
