"""Which hidden state is the best key? Khandelwal et al. (2020), Table 5: the kNN-LM by site."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.lm.anatomy import FFN_INPUT_AFTER


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return LM and kNN-LM of each site on test, tuned on validation, compared in pairs."""
    run, own, rows = ScoredRun.of("key_function", inputs, settings), settings["key_function"], []
    for seed in run.seeds:
        scored = run.scored(seed, searched_in=own["datastores"])
        found = {
            run.datastores[name]["site"]: run.retrieved(scored, datastore=name, index=own["index"])
            for name in own["datastores"]
        }
        against = {"lm": scored.nll, FFN_INPUT_AFTER: found[FFN_INPUT_AFTER].nll}
        rows += scored.rows("lm", "no datastore", scored.nll, against={})
        for site, retrieved in found.items():
            rows += retrieved.rows(site, against=against)
    return {"table": table_of(rows)}
