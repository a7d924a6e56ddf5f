"""Which explanations of kNN-LMs do not explain them.

Xu et al. (2023) name hypotheses on why kNN lowers perplexity, and rule them out: what each says to
be the reason is put in the place of kNN, mixed with the LM, and brings less. The overfitted LM is
the experiment `memorizing_lm`.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from knnlm.evidence.scored_text import Row
from knnlm.experiments.ruled_out import lm_ensemble, two_metrics
from knnlm.experiments.ruled_out.alternatives import EXPERIMENT, read_alternatives
from knnlm.experiments.ruled_out.component import TEST
from knnlm.experiments.ruled_out.rows import Compared
from knnlm.experiments.ruled_out.stolen_probabilities import (
    hull_rows,
    most_stolen,
    read_certificates,
)
from knnlm.experiments.ruled_out.subject import subjects
from knnlm.experiments.ruled_out.trained import TrainedLMs
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.runtime.places import places


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment, all on test.

    Args:
        inputs: models, datastores, queries, neighbors and tuned points of both splits by the
            baseline's index and the second metric's, the scored alternatives, and the certificates
            of the output vectors.
        settings: corpus, lm_seeds, baseline, datastores, indexes, ruled_out, and
            second_metric_seeds, the LM seeds that were searched by the second metric.

    Returns:
        `table`. `method` is lm, knn_lm or the hypothesis; `setting` is its variant, if it has
        several, and `tuned` (on validation) or `tuned on test`. Rows of costs have the variant
        alone.

    Raises:
        ArtifactError: if folders belong to different LMs, queries or neighbors.
    """
    run = ScoredRun.of(EXPERIMENT, inputs, settings)
    (alternatives,), (certificates,) = inputs["alternatives"], inputs["certificates"]
    own, every, rows = settings[EXPERIMENT], subjects(inputs, settings, run), list[Row]()
    second = settings["indexes"][own["two_metrics"]["index"]]
    for subject in every:
        compared = Compared.of(subject, run.baseline["grid"])
        rows += compared.baseline_rows()
        components = [
            *read_alternatives(alternatives, subject),
            *lm_ensemble.components(subject, every),
        ]
        if subject.seed in settings["second_metric_seeds"]:
            components.append(two_metrics.component(subject, run, own["two_metrics"], second))
        if subject is every[0]:  # other trainings were run for one seed
            models = places(inputs["models"], kind="model", by=("model", "seed"))
            trained = TrainedLMs.of(subject, run, own["trained"], models)
            components += trained.components()
            rows += trained.rows()
        for component in components:
            rows += compared.rows(component)
        how = read_certificates(certificates, seed=subject.seed, model=subject.model)
        rows += hull_rows(subject.scored[TEST], how)
    return {"table": table_of([*rows, most_stolen(rows)])}
