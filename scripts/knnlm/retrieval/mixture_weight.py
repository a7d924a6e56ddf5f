"""The weight of a distribution that is mixed with an LM, whatever it is: chosen on validation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.interpolation import mix_log_probs


def best_lmbda(
    lm: NDArray[np.float64], other: NDArray[np.float64], lmbdas: Sequence[float]
) -> float:
    """Return the weight on `other` with the least nll; of equal ones, the first.

    Args:
        lm: (n_queries,), log-probabilities of the targets of validation.
        other: (n_queries,), the same of what is mixed with the LM; NaN where it says nothing.
        lmbdas: weights that are tried, ascending.
    """
    nll = [-mix_log_probs(lm, other, lmbda).mean() for lmbda in lmbdas]
    return float(lmbdas[int(np.argmin(nll))])
