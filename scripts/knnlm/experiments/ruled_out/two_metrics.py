"""Whether kNN helps because it brings a second metric: neighbors by L2 and by inner product, mixed.

p = (1 - weight) p_kNN by L2 + weight p_kNN by inner product stands in the place of kNN's
distribution, k and temperature of each tuned by itself. It contains the kNN-LM, so the question is
what the second metric adds to what the first one brought.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from knnlm.experiments.ruled_out.component import SPLITS, Component, Cost
from knnlm.experiments.ruled_out.subject import Subject
from knnlm.experiments.shared.cost import flops_of_search
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.retrieval.interpolation import mix_log_probs

METHOD = "two_metrics"


def component(
    subject: Subject, run: ScoredRun, settings: Mapping[str, Any], index: Mapping[str, Any]
) -> Component:
    """Return the mixture of both kNN distributions, at several weights.

    Args:
        subject: the LM.
        run: of its neighbors by both indexes.
        settings: `index`, the name of the second one, and `weights` on it.
        index: its block of the config.
    """
    log_probs = {}
    for split in SPLITS:
        second = run.retrieved(subject.scored[split], index=settings["index"])
        one, other = subject.retrieved[split].knn_log_probs, second.knn_log_probs
        mixed = [mix_log_probs(one, other, weight) for weight in settings["weights"]]
        log_probs[split] = np.stack(mixed)
    first, searched = subject.knn_cost(), second.searched
    size = {"n_entries": second.n_entries, "dim": subject.store.dim, "k": searched["k"]}
    cost = Cost(first.flops + flops_of_search(index, **size), first.bytes)  # of the same keys
    weights = np.array(settings["weights"])
    return Component(METHOD, "", "weight_on_second", weights, log_probs, cost)
