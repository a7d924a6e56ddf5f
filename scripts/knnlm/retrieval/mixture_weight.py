"""The weight of a distribution that is mixed with an LM, whatever it is: chosen on validation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.interpolation import mix_log_probs


def best_lmbda(
    lm: NDArray[np.float64], other: NDArray[np.float64], lmbdas: Mapping[str, Any]
) -> float:
    """Return the weight on `other` with the least nll; of equal ones, the smallest.

    Args:
        lm: (n_queries,), log-probabilities of the targets of validation.
        other: (n_queries,), the same of what is mixed with the LM.
        lmbdas: `low`, `high` and `count` of the grid.
    """
    grid = np.linspace(lmbdas["low"], lmbdas["high"], lmbdas["count"])
    nll = [-mix_log_probs(lm, other, lmbda).mean() for lmbda in grid]
    return float(grid[int(np.argmin(nll))])
