"""Intervals of 95 %: a bootstrap over documents for text, Student's t over seeds for training.

Tokens of one document are not independent, so whole documents are drawn again. Such an interval
is conditional on the trained model: it says how the number moves with other documents, not with
another training run; for that, train several seeds.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
MINIMUM_DOCUMENTS = 30  # below it a percentile bootstrap is too narrow to be shown


class Interval(NamedTuple):
    """Ends of a confidence interval; both are NaN where none can be given."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


class DocumentBootstrap:
    """Resampled documents of one scored text, drawn once so that all metrics share them.

    Every statistic is a ratio of two sums over tokens (nll over tokens, nll over words, a
    difference of two methods over tokens of one class). A resample draws as many documents as
    there are, with replacement, and takes the ratio of their sums; the interval lies between the
    percentiles of these ratios (Efron 1979).
    """

    def __init__(
        self,
        documents: NDArray[np.integer],
        *,
        samples: int,
        generator: np.random.Generator,
    ) -> None:
        """Draw the resamples.

        Args:
            documents: (n_tokens,), the document of each token; any numbers.
            samples: how many resamples.
            generator: the source of randomness.

        Raises:
            ValueError: if there is no token or no resample.
        """
        if len(documents) == 0 or samples < 1:
            raise ValueError(
                "a bootstrap needs at least one token and one resample, got "
                f"{len(documents):,} tokens and {samples:,} resamples"
            )
        names, self._document = np.unique(documents, return_inverse=True)
        self.n_documents = len(names)
        share = np.full(self.n_documents, 1 / self.n_documents)
        # (samples, n_documents): how often each document was drawn; float64 for the products
        self._draws = generator.multinomial(self.n_documents, share, size=samples).astype(float)

    def ratio(
        self, numerators: NDArray[np.floating], denominators: NDArray[np.number] | None = None
    ) -> Interval:
        """Return the interval of sum(numerators) / sum(denominators).

        A monotone function of the ratio, such as exp, has the interval of its transformed ends.

        Args:
            numerators: (n_tokens,).
            denominators: (n_tokens,), at least 0; None counts tokens.

        Returns:
            NO_INTERVAL when fewer than 30 documents have a positive denominator.
        """
        if denominators is None:
            denominators = np.ones(len(self._document))
        above, below = self.sums(numerators), self.sums(denominators)
        if np.count_nonzero(below > 0) < MINIMUM_DOCUMENTS:
            return NO_INTERVAL
        return _percentiles((self._draws @ above) / (self._draws @ below))

    def difference_of_ratios(
        self,
        one: tuple[NDArray[np.floating], NDArray[np.number]],
        other: tuple[NDArray[np.floating], NDArray[np.number]],
    ) -> Interval:
        """Return the interval of one ratio of sums minus another, both of the same resamples.

        What moves both ratios with the documents, such as a document full of rare words, is left
        out of their difference.

        Args:
            one: numerators and denominators, (n_tokens,) each, the denominators at least 0.
            other: the same of the ratio that is taken away.

        Returns:
            NO_INTERVAL when fewer than 30 documents have a positive denominator of either.
        """
        (above, below), (above_other, below_other) = (
            tuple(map(self.sums, pair)) for pair in (one, other)
        )
        if min(np.count_nonzero(b > 0) for b in (below, below_other)) < MINIMUM_DOCUMENTS:
            return NO_INTERVAL
        ratio = (self._draws @ above) / (self._draws @ below)
        return _percentiles(ratio - (self._draws @ above_other) / (self._draws @ below_other))

    def of_means(
        self,
        statistic: Callable[..., NDArray[np.float64]],
        *per_token: NDArray[np.floating],
    ) -> Interval:
        """Return the interval of a function of several means over tokens, resampled together.

        Args:
            statistic: from the means, (samples,) each, to the value of each resample.
            per_token: (n_tokens,) each.

        Returns:
            NO_INTERVAL for fewer than 30 documents.
        """
        if self.n_documents < MINIMUM_DOCUMENTS:
            return NO_INTERVAL
        n_tokens = self._draws @ self.sums(np.ones(len(self._document)))
        means = [self._draws @ self.sums(values) / n_tokens for values in per_token]
        return _percentiles(statistic(*means))

    def sums(self, per_token: NDArray[np.number]) -> NDArray[np.float64]:
        """Return the sum of a per-token quantity over each document, in float64.

        Raises:
            ValueError: if there is not one value for each token.
        """
        if len(per_token) != len(self._document):
            raise ValueError(
                f"expected {len(self._document):,} values, one a token, got {len(per_token):,}"
            )
        weights = np.asarray(per_token, dtype=np.float64)
        return np.bincount(self._document, weights=weights, minlength=self.n_documents)


def _percentiles(resampled: NDArray[np.float64]) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(low), float(high))


def student_interval(values: NDArray[np.floating]) -> Interval:
    """Return Student's t interval of the mean of independent runs, one value a seed.

    Args:
        values: (n_seeds,).

    Returns:
        NO_INTERVAL for fewer than two values.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return NO_INTERVAL
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return Interval(float(values.mean() - half), float(values.mean() + half))
