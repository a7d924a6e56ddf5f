"""Whether retrieval from its own training data helps an LM of another domain.

Khandelwal et al. (2020), Table 2: an LM trained on the second corpus, alone and with the datastore
of its own training data, on that corpus.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from knnlm.evidence.tables import tidy
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import KNN_LM
from knnlm.retrieval.tuning import Point

EXPERIMENT = "second_domain"


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return LM and kNN-LM of the second corpus, on validation and on test, compared in pairs.

    Args:
        inputs: queries, neighbors and tuned, all of the second corpus and the first LM seed.
        settings: corpus, lm_seeds, baseline, datastores and second_domain.

    Returns:
        `table`, with k, temperature and lmbda tuned on validation, and as published.

    Raises:
        ArtifactError: if folders belong to different models or seeds.
    """
    name = settings[EXPERIMENT]["datastore"]
    store = settings["datastores"][name]
    run = ScoredRun.of(EXPERIMENT, inputs, settings | {"corpus": store["corpus"]})
    index, rows = run.baseline["index"], []
    for split in ("validation", "test"):
        scored = run.scored(run.seeds[0], split, model=store["model"])
        retrieved = run.retrieved(scored, datastore=name)
        against = {"lm": scored.nll}
        rows += scored.rows("lm", "", scored.nll, against={})
        rows += scored.rows(KNN_LM, f"{index}/tuned", retrieved.nll, against=against)
        published = scored.knn_nll(retrieved.found, Point(**run.baseline["published"]))
        rows += scored.rows(KNN_LM, f"{index}/published", published, against=against)
    return {"table": tidy(rows + retrieved.tuned_rows(f"{index}/tuned"))}
