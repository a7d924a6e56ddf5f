"""The continuous cache: what stood after similar hidden states of the recent past of a document.

At position t of a document, with h_i the hidden state at position i and x_{i+1} the token after it
(Grave et al. 2017, Eq. 3),

    p_cache(w) = sum over the `size` positions i before t with x_{i+1} = w of exp(theta h_t . h_i)

over the same sum for all tokens. theta 0 counts the recent tokens alone. Every theta and size is
scored from the same stored states: one matrix product a document, and sums from the most recent
position back, which serve all sizes. At the first token of a document there is no past: p_cache
does not exist (NaN), and a mixture falls back to its other part.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.mixture import best_weights, mix_parts

ROWS_AT_A_TIME = 128  # positions of one document: with 4,096 past ones 4 MiB of float64


class CacheTuning(NamedTuple):
    """The mean nll of a mixture with a cache of every theta and size, on validation.

    Attributes:
        weights: (n_thetas, n_sizes, n_parts + 1), the best ones, that of the cache last.
        nll: (n_thetas, n_sizes), nats a token with these weights.
    """

    weights: NDArray[np.float64]
    nll: NDArray[np.float64]

    @property
    def best(self) -> tuple[int, int]:
        """The places of theta and size with the least nll; of equal ones, the first."""
        theta, size = np.unravel_index(np.argmin(self.nll), self.nll.shape)
        return int(theta), int(size)


def tune_cache(parts: NDArray[np.float64], cache: NDArray[np.float64]) -> CacheTuning:
    """Mix a cache of every theta and size with other distributions, at the best weights.

    Args:
        parts: (n_parts, n), log-probabilities of the targets by the others, the LM first.
        cache: (n_thetas, n_sizes, n), see `cache_log_probs`.
    """
    weights = np.empty((*cache.shape[:2], len(parts) + 1))
    nll = np.empty(cache.shape[:2])
    for place in np.ndindex(nll.shape):
        every = np.vstack([parts, cache[place]])
        weights[place] = best_weights(every)
        nll[place] = -mix_parts(every, weights[place]).mean()
    return CacheTuning(weights, nll)


def mean_squared_norm(hidden: NDArray[np.float32]) -> float:
    """Return the mean squared norm of hidden states (n, d); thetas are relative to 1 over it.

    At a relative theta of 1, theta h_t . h_i of two equal states is about 1, whatever the width
    and the scale of the states.
    """
    return float(np.einsum("nd,nd->n", hidden, hidden).mean(dtype=np.float64))


def cache_log_probs(
    hidden: NDArray[np.float32],
    targets: NDArray[np.integer],
    documents: NDArray[np.integer],
    rows: NDArray[np.int64],
    *,
    thetas: Sequence[float],
    sizes: Sequence[int],
) -> NDArray[np.float64]:
    """Return log p_cache of targets, in nats, for every theta and size.

    Args:
        hidden: (n_positions, d), states of all positions of whole documents, in order.
        targets: (n_positions,), the token after each.
        documents: (n_positions,), the document of each, ascending.
        rows: (n,), the positions whose targets are scored, ascending.
        thetas: each at least 0, in units of 1 over a squared norm.
        sizes: past positions that are looked at, each at least 1.

    Returns:
        (n_thetas, n_sizes, n): -inf where the cache lacks the target, NaN where it is empty.

    Raises:
        ValueError: if a theta or a size is out of its range.
    """
    if min(thetas) < 0 or min(sizes) < 1:
        raise ValueError(
            f"expected thetas of at least 0 and sizes of at least 1, got {list(thetas)} and "
            f"{list(sizes)}"
        )
    borders, place = np.unique(sizes, return_inverse=True)
    found = np.full((len(thetas), len(borders), len(rows)), np.nan)
    for some, begin in _within_documents(documents, rows):
        at = rows[some]
        past = at[:, None] - np.arange(1, 1 + min(borders[-1], at[-1] - begin))  # latest first
        inside = past >= begin
        if not inside.any():
            continue
        lowest = max(begin, int(at[0]) - int(borders[-1]))
        products = (hidden[at] @ hidden[lowest : at[-1]].T).astype(np.float64)
        places = np.where(inside, past - lowest, 0)
        similar = np.take_along_axis(products, places, axis=1)
        same = targets[lowest + places] == targets[at, None]
        for number, theta in enumerate(thetas):
            scores = np.where(inside, theta * similar, -np.inf)
            found[number, :, some] = _of_sizes(scores, same, borders)
    return found[:, place]


def _within_documents(
    documents: NDArray[np.integer], rows: NDArray[np.int64]
) -> Iterator[tuple[slice, int]]:
    """Yield some rows at a time of one document, as a slice, and where the document begins."""
    changes = np.flatnonzero(np.diff(documents[rows])) + 1
    for first, stop in zip([0, *changes], [*changes, len(rows)], strict=True):
        begin = int(np.searchsorted(documents, documents[rows[first]]))
        for start in range(first, stop, ROWS_AT_A_TIME):
            yield slice(start, min(start + ROWS_AT_A_TIME, stop)), begin


def _of_sizes(
    scores: NDArray[np.float64], same: NDArray[np.bool_], borders: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return log p_cache (n_sizes, n) from scores (n, n_past), the most recent first.

    Sums are taken from one size to the next and then accumulated; each is shifted by its own
    largest score, so that a far larger one beyond it does not make it underflow.
    """
    sums = np.full((2, len(borders), len(scores)), -np.inf)
    for number, (start, stop) in enumerate(zip([0, *borders], borders, strict=False)):
        piece = scores[:, start:stop]
        if not piece.size:
            break
        largest = piece.max(axis=1)
        largest[np.isneginf(largest)] = 0.0
        weights = np.exp(piece - largest[:, None])
        of_target = np.einsum("nc,nc->n", weights, same[:, start:stop])
        with np.errstate(divide="ignore"):
            sums[:, number] = np.log([weights.sum(axis=1), of_target]) + largest
    every, of_target = np.logaddexp.accumulate(sums, axis=1)
    with np.errstate(invalid="ignore"):  # of an empty cache
        return np.minimum(of_target - every, 0.0)
