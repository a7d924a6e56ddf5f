"""Describe a corpus by the statistics with which the gazetteer is set beside WikiText.

A text is split at white space, as WikiText is meant to be; headings stay in. All entropies are
in bits per word.
"""

import gzip
import math
import re
from collections import Counter
from collections.abc import Sequence

ZIPF_RANKS = (10, 3000)  # head and tail bend away from the line
DISCOUNT = 0.75  # of the Kneser-Ney models: the value usual for corpora of this size
REPEATED = 8  # words of the n-grams looked for in train
UNKNOWN = "<unknown>"  # what held-out words outside train become; WikiText has its own <unk>

_SENTENCE_END = re.compile(r"(?<= [.!?]) (?=[A-Z\"])|\n")
_HEADING = re.compile(r"^ *=.*= *$", re.MULTILINE)
_DIGIT = re.compile(r"\d")


def describe(train: str, held_out: str) -> dict[str, float]:
    """Return the statistics of a train text and of a text held out from it.

    Args:
        train: text whose words are counted.
        held_out: text of the same source, to be predicted from train.

    Raises:
        ValueError: if a text has no words.
    """
    words, unseen = train.split(), held_out.split()
    if not words or not unseen:
        raise ValueError("expected words in train and in the held-out text, got none")
    counts = Counter(words)
    lengths = sentence_lengths(train)
    mean = sum(lengths) / len(lengths)
    return {
        "words": len(words),
        "types": len(counts),
        "types_per_token": len(counts) / len(words),
        "hapax_share": sum(count == 1 for count in counts.values()) / len(counts),
        "zipf_slope": zipf_slope(words),
        "sentence_length": mean,
        "sentence_length_sd": math.sqrt(sum((n - mean) ** 2 for n in lengths) / len(lengths)),
        "unigram_entropy": unigram_entropy(words),
        "bigram_entropy": kneser_ney_entropy(words, unseen, order=2),
        "trigram_entropy": kneser_ney_entropy(words, unseen, order=3),
        "oov_rate": sum(word not in counts for word in unseen) / len(unseen),
        "repeated_8grams": repeated_share(words, unseen, n=REPEATED),
        "gzip_ratio": gzip_ratio(train),
        "number_share": sum(bool(_DIGIT.match(word)) for word in words) / len(words),
    }


def zipf_slope(words: Sequence[str]) -> float:
    """Return the least-squares slope of log count over log rank, ranks 10 to 3000.

    Raises:
        ValueError: if there are fewer than two such ranks.
    """
    first, last = ZIPF_RANKS
    ordered = sorted(Counter(words).values(), reverse=True)[first - 1 : last]
    if len(ordered) < 2:
        raise ValueError(f"expected more than {first} types for a Zipf slope; use a longer text")
    x = [math.log(first + i) for i in range(len(ordered))]
    y = [math.log(count) for count in ordered]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)


def sentence_lengths(text: str) -> list[int]:
    """Return the number of words of each sentence, stops included, headings left out."""
    sentences = _SENTENCE_END.split(_HEADING.sub("\n", text))
    return [len(sentence.split()) for sentence in sentences if sentence.strip()]


def unigram_entropy(words: Sequence[str]) -> float:
    """Return the entropy of the words' own frequencies, in bits per word."""
    total = len(words)
    return -math.fsum(n / total * math.log2(n / total) for n in Counter(words).values())


def repeated_share(train: Sequence[str], held_out: Sequence[str], *, n: int) -> float:
    """Return the share of the held-out n-grams that stand in train; 0 if there are none."""
    known = set(_ngrams(train, n))
    found = [ngram in known for ngram in _ngrams(held_out, n)]
    return sum(found) / len(found) if found else 0.0


def gzip_ratio(text: str) -> float:
    """Return how many times gzip shrinks the text."""
    raw = text.encode("utf-8")
    return len(raw) / len(gzip.compress(raw, mtime=0))


def kneser_ney_entropy(train: Sequence[str], held_out: Sequence[str], *, order: int) -> float:
    """Return the cross entropy of held-out words under a Kneser-Ney model, in bits per word.

    Words outside train count as one unknown word, which costs what the model leaves for it. The
    first order - 1 held-out words are context only.

    Args:
        train: at least order words.
        held_out: more than order - 1 words.
        order: 2 for bigrams, 3 for trigrams.
    """
    model = KneserNey(train, order=order)
    ngrams = _ngrams([word if word in model.vocabulary else UNKNOWN for word in held_out], order)
    if not ngrams:
        raise ValueError(f"expected at least {order} held-out words, got {len(held_out)}")
    return -math.fsum(math.log2(model.p(ngram)) for ngram in ngrams) / len(ngrams)


class KneserNey:
    """Interpolated Kneser-Ney (Chen and Goodman 1999, Eq. 20) with one discount for all orders.

    Shorter contexts count the different words that an n-gram follows instead of how often it
    occurs; the shortest is mixed with the uniform distribution over the vocabulary, which has
    one word for all unknown ones.
    """

    def __init__(self, words: Sequence[str], *, order: int) -> None:
        self.vocabulary = frozenset(words) | {UNKNOWN}
        self._counts = [Counter(_ngrams(words, order))]
        while order > 1:
            order -= 1
            self._counts.append(Counter(ngram[1:] for ngram in self._counts[-1]))
        self._counts.reverse()  # by length of the n-gram, from 1
        self._totals = [Counter[tuple[str, ...]]() for _ in self._counts]
        self._followers = [Counter[tuple[str, ...]]() for _ in self._counts]
        for counts, totals, followers in zip(
            self._counts, self._totals, self._followers, strict=True
        ):
            for ngram, count in counts.items():
                totals[ngram[:-1]] += count
                followers[ngram[:-1]] += 1

    def p(self, ngram: tuple[str, ...]) -> float:
        """Return the probability of the last word after the others."""
        if not ngram:
            return 1.0 / len(self.vocabulary)
        level, context = len(ngram) - 1, ngram[:-1]
        shorter = self.p(ngram[1:])
        total = self._totals[level][context]
        if not total:
            return shorter
        kept = max(self._counts[level][ngram] - DISCOUNT, 0.0)
        return (kept + DISCOUNT * self._followers[level][context] * shorter) / total


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(n)), strict=False))
