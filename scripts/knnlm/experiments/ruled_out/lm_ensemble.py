"""Whether kNN helps as any second model would: the ensemble of two LMs of different seeds."""

from collections.abc import Sequence

import numpy as np

from knnlm.experiments.ruled_out.component import NO_OPTION, SPLITS, Component, Cost
from knnlm.experiments.ruled_out.subject import Subject
from knnlm.experiments.shared.cost import flops_of_model
from knnlm.lm.model import load_model
from knnlm.runtime.logs import LOGGER

METHOD = "lm_ensemble"


def components(subject: Subject, every: Sequence[Subject]) -> list[Component]:
    """Return the LM of the next seed, which takes the place of kNN beside that of this one.

    Args:
        subject: the LM.
        every: all LM seeds of the run, in order; after the last comes the first.

    Returns:
        Nothing where there is one seed alone: then the ensemble is not run.
    """
    if len(every) < 2:
        LOGGER.warning("%s is not run: it takes two lm_seeds, got one", METHOD)
        return []
    other = every[(every.index(subject) + 1) % len(every)]
    for split in SPLITS:
        subject.scored[split].require_paired(other.scored[split])
    network = load_model(other.model)
    size = sum(one.numel() * one.element_size() for one in network.parameters())
    log_probs = {split: -other.scored[split].nll[None] for split in SPLITS}
    cost = Cost(flops_of_model(network).query, float(size))
    return [Component(METHOD, "", NO_OPTION, np.zeros(1), log_probs, cost)]
