"""Which hidden state is the best key? Khandelwal et al. (2020), Table 5: the kNN-LM by site."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.lm.architecture import FFN_INPUT_AFTER


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return LM and kNN-LM of each site on test, tuned on validation, compared in pairs."""
    run, rows = ScoredRun.of("key_function", inputs, settings), []
    names = settings["key_function"]["datastores"]
    for seed in run.seeds:
        scored = run.scored(seed, searched_in=names)
        found = {run.site(name): run.retrieved(scored, datastore=name) for name in names}
        against = {"lm": scored.nll, FFN_INPUT_AFTER: found[FFN_INPUT_AFTER].nll}
        rows += scored.rows("lm", "no datastore", scored.nll, against={})
        for site, retrieved in found.items():
            rows += retrieved.rows(site, against=against)
    return {"table": table_of(rows)}
