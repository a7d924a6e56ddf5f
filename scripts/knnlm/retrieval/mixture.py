"""Mixtures of several distributions: the weights that make a text likeliest, and what they give.

The log-likelihood of a text is concave in the weights of a mixture, so that there is one maximum,
without a grid. It is found by EM (Jelinek and Mercer 1980), which needs what each part says of
the targets alone.
"""

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-6  # nats a token that the best weights may be better
MOST_ROUNDS = 10_000


def best_weights(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights with which a mixture of distributions finds the targets likeliest.

    Args:
        parts: (n_parts, n_targets), the log-probability of each target by each part; that of the
            first is finite. A part that says nothing of a target (NaN) leaves it to the first.

    Returns:
        (n_parts,), summing to one; the mean log-likelihood is within 1e-6 nats of the largest.

    Raises:
        ValueError: if the first part gives a target no probability.
    """
    log_probs = _with_first(parts)
    probs = np.exp(log_probs - log_probs.max(axis=0))
    weights = np.full(len(parts), 1 / len(parts))
    for _ in range(MOST_ROUNDS):
        # By Jensen's inequality no weights gain more than the log of the largest of these means.
        gains = (probs / (weights @ probs)).mean(axis=1)
        if np.log(gains.max()) < TOLERANCE:
            break
        weights = weights * gains
    return weights / weights.sum()


def mix_parts(parts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-probability (n_targets,) of each target by a mixture, see `best_weights`."""
    log_probs = _with_first(parts)
    largest = log_probs.max(axis=0)
    return largest + np.log(weights @ np.exp(log_probs - largest))


def _with_first(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    impossible = np.count_nonzero(~np.isfinite(parts[0]))
    if impossible:
        raise ValueError(
            f"expected finite log-probabilities of the first part, got {impossible:,} others"
        )
    return np.where(np.isnan(parts), parts[0], parts)
