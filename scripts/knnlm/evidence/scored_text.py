"""Rows about one scored text: perplexities, and paired differences of two methods on it.

Both methods score the same tokens, so their difference is taken token by token; its interval
comes from resampled documents and leaves out what both share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.intervals import DocumentBootstrap, Interval
from knnlm.evidence.metrics import (
    perplexity_per_raw_word,
    perplexity_per_token,
    perplexity_per_word,
    word_counts,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class ScoredText:
    """What methods that scored the same tokens share.

    `words` and `lines` (n_tokens,) count what begins or ends in each target token; `bootstrap`
    resamples the documents of the targets.
    """

    words: NDArray[np.uint8]
    lines: NDArray[np.uint8]
    bootstrap: DocumentBootstrap

    def perplexities(self, names: Mapping[str, Any], nll: NDArray[np.float64]) -> list[Row]:
        """Return perplexity per token, per word and per raw word, each with its interval.

        Args:
            names: the names of the rows, such as method and setting.
            nll: (n_tokens,), nats.
        """
        counted = word_counts(self.words, self.lines)
        metrics = {
            "perplexity_per_token": (perplexity_per_token(nll), np.ones_like(counted)),
            "perplexity_per_word": (perplexity_per_word(nll, self.words, self.lines), counted),
            "perplexity_per_raw_word": (perplexity_per_raw_word(nll, self.words), self.words),
        }
        rows = []
        for metric, (value, counts) in metrics.items():
            interval = Interval(*np.exp(self.bootstrap.ratio(nll, counts)))
            n = int(np.sum(counts, dtype=np.int64))
            rows.append(_row(names, metric, value, interval, n=n, unit="perplexity"))
        return rows

    def differences(
        self,
        names: Mapping[str, Any],
        nll: NDArray[np.float64],
        baseline: NDArray[np.float64],
        *,
        against: str,
    ) -> list[Row]:
        """Return a method's nll minus a baseline's, below 0 where it is better, and in percent.

        Args:
            names: the names of the rows.
            nll: (n_tokens,), nats, of the method.
            baseline: (n_tokens,), nats, of the baseline.
            against: the baseline's name, for the metric's.

        Returns:
            The mean difference in nats a token, and the relative change of perplexity per token
            and per word.
        """
        difference = nll - baseline
        tokens = np.ones(len(nll), dtype=np.int64)
        rows = [self.mean_difference(names, difference, against=against)]
        counted = word_counts(self.words, self.lines)
        for unit, counts in {"token": tokens, "word": counted}.items():
            mean = np.sum(difference) / counts.sum()
            interval = self.bootstrap.ratio(difference, counts)
            change, low, high = 100 * np.expm1([mean, *interval])
            metric = f"perplexity_per_{unit}_change_vs_{against}"
            n = int(counts.sum())
            rows.append(_row(names, metric, change, Interval(low, high), n=n, unit="percent"))
        return rows

    def mean_difference(
        self,
        names: Mapping[str, Any],
        difference: NDArray[np.float64],
        *,
        against: str,
        mask: NDArray[np.bool_] | None = None,
    ) -> Row:
        """Return the mean of a paired difference over all tokens, or over those of one class.

        Args:
            names: the names of the row.
            difference: (n_tokens,), nats.
            against: the baseline's name.
            mask: (n_tokens,), the class; at least one token.
        """
        if mask is None:
            mask = np.ones(len(difference), dtype=bool)
        inside = np.where(mask, difference, 0.0)
        return _row(
            names,
            f"nats_per_token_vs_{against}",
            float(np.sum(inside) / mask.sum()),
            self.bootstrap.ratio(inside, mask),
            n=int(mask.sum()),
            unit="nats per token",
        )

    def difference_of_classes(
        self,
        names: Mapping[str, Any],
        difference: NDArray[np.float64],
        one: NDArray[np.bool_],
        other: NDArray[np.bool_],
        *,
        against: str,
    ) -> Row:
        """Return how much more a paired difference is in one class of tokens than in another.

        Both classes come from the same documents, so these are resampled for both together.

        Args:
            names: the names of the row, of which one says that it is a difference.
            difference: (n_tokens,), nats, a method's nll minus the baseline's.
            one: (n_tokens,), the class; at least one token.
            other: (n_tokens,), the class that is taken away; at least one token.
            against: the baseline's name.
        """
        pairs = [(np.where(mask, difference, 0.0), mask) for mask in (one, other)]
        mean, of_other = (inside.sum() / mask.sum() for inside, mask in pairs)
        return _row(
            names,
            f"nats_per_token_vs_{against}",
            float(mean - of_other),
            self.bootstrap.difference_of_ratios(*pairs),
            n=int(one.sum() + other.sum()),
            unit="nats per token",
        )

    def share(self, names: Mapping[str, Any], metric: str, hits: NDArray[np.bool_]) -> Row:
        """Return the share of tokens for which something holds, with its interval."""
        interval = self.bootstrap.ratio(hits.astype(np.float64))
        return _row(names, metric, float(hits.mean()), interval, n=len(hits), unit="share")


def _row(
    names: Mapping[str, Any], metric: str, value: float, interval: Interval, *, n: int, unit: str
) -> Row:
    ends = {"ci_low": interval.low, "ci_high": interval.high}
    return dict(names) | {"metric": metric, "value": value, **ends, "n": n, "unit": unit}
