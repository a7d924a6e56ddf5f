"""Metrics of a scored text: perplexity in its three units, and hits among neighbors.

Everything starts from nll, the negative log-probability of each target token in nats, and sums in
float64 over all tokens: long documents weigh more than short ones, batches weigh nothing.
"""

import numpy as np
from numpy.typing import NDArray


def perplexity_per_token(nll: NDArray[np.float64]) -> float:
    """Return exp of the mean nll. Depends on the tokenizer.

    Args:
        nll: (n_tokens,), nats.

    Raises:
        ValueError: if there is no token.
    """
    return _perplexity(nll, np.ones(len(nll), dtype=np.int64), unit="tokens")


def perplexity_per_word(
    nll: NDArray[np.float64], words: NDArray[np.integer], lines: NDArray[np.integer]
) -> float:
    """Return exp of the total nll over the words of the text, the unit of the papers.

    Words are whitespace-separated and every line end counts as one more, as fairseq does when it
    reads WikiText; the number does not depend on the tokenizer.

    Args:
        nll: (n_tokens,), nats.
        words: (n_tokens,), words that begin in each token.
        lines: (n_tokens,), line ends in each token.

    Raises:
        ValueError: if there is neither a word nor a line end, or shapes differ.
    """
    return _perplexity(nll, word_counts(words, lines), unit="words and line ends")


def perplexity_per_raw_word(nll: NDArray[np.float64], words: NDArray[np.integer]) -> float:
    """Return exp of the total nll over whitespace-separated words, line ends not counted.

    Args:
        nll: (n_tokens,), nats.
        words: (n_tokens,), words that begin in each token.

    Raises:
        ValueError: if there is no word, or shapes differ.
    """
    return _perplexity(nll, np.asarray(words, dtype=np.int64), unit="words")


def word_counts(words: NDArray[np.integer], lines: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return words plus line ends of each token: what fairseq counts as words.

    Args:
        words: (n_tokens,), words that begin in each token.
        lines: (n_tokens,), line ends in each token.
    """
    return np.asarray(words, dtype=np.int64) + np.asarray(lines, dtype=np.int64)


def hits_at_k(
    neighbor_values: NDArray[np.int32], targets: NDArray[np.int32], *, k: int
) -> NDArray[np.bool_]:
    """Return whether each target is among the values of its k nearest neighbors.

    Args:
        neighbor_values: (n_queries, k_max), nearest first; -1 where a neighbor is missing.
        targets: (n_queries,), token ids, never negative.
        k: how many neighbors count.

    Raises:
        ValueError: if k is below 1 or above what was stored, or shapes differ.
    """
    n_queries, k_max = neighbor_values.shape
    if not 1 <= k <= k_max:
        raise ValueError(
            f"k must be in [1, {k_max}], the neighbors that were stored, got {k}; raise search.k"
        )
    if len(targets) != n_queries:
        raise ValueError(f"expected {n_queries:,} targets, one a query, got {len(targets):,}")
    return (neighbor_values[:, :k] == np.asarray(targets)[:, None]).any(axis=1)


def _perplexity(nll: NDArray[np.float64], counts: NDArray[np.int64], *, unit: str) -> float:
    if nll.shape != counts.shape:
        raise ValueError(f"expected one nll a token, got shapes {nll.shape} and {counts.shape}")
    total = int(counts.sum())
    if total == 0:
        raise ValueError(f"expected {unit} in the text, got none in {len(nll):,} tokens")
    return float(np.exp(np.sum(nll, dtype=np.float64) / total))


def share_of_gap(
    lm: NDArray[np.float64] | float,
    knn: NDArray[np.float64] | float,
    other: NDArray[np.float64] | float,
) -> NDArray[np.float64] | float:
    """Return the share of the perplexity gap LM -> kNN-LM that another distribution closes.

    0 is the LM, 1 the kNN-LM. It means something where the gap itself is above 0.

    Args:
        lm: mean nll of the LM, in nats; of one text, or (samples,) of its resamples.
        knn: the same of the kNN-LM.
        other: the same of the other distribution.
    """
    return (np.exp(lm) - np.exp(other)) / (np.exp(lm) - np.exp(knn))
