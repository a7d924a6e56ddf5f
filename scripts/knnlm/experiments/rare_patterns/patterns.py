"""How often the tokens before a position stand in a training text, for every length at once.

Each token has a random code of 64 bits, and a run of tokens the sum of their codes times powers of
an odd number: equal runs have equal sums, and two different ones the same with a chance of about
2^-64. One token more on the left is one sum more, and what matches with it has matched without it,
so that ever fewer positions of the text are looked at.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.seeds import numpy_generator

BLOCK = 1 << 20  # positions of the training text that are looked at together
FACTOR = 0x9E3779B97F4A7C15  # odd, so that multiplying by it loses nothing


def suffix_counts(
    train: NDArray[np.unsignedinteger],
    stream: NDArray[np.unsignedinteger],
    ends: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    longest: int,
) -> NDArray[np.int64]:
    """Return how often the last 1, 2, ... tokens of each context stand in a training text.

    Only where another token follows, as in a datastore: its last token is the end of no context.

    Args:
        train: (n_train,), token ids.
        stream: (n_tokens,), token ids of the text of the contexts.
        ends: (n,), the place of the last token of each context in the stream.
        lengths: (n,), tokens that each context has, at least 1.
        longest: the largest number of last tokens that is counted.

    Returns:
        (n, longest), 0 where the context is shorter. From left to right it never rises, and the
        number of counts above 0 is the longest common suffix with a context of train.
    """
    vocabulary = 1 + int(max(train.max(), stream.max()))
    codes = numpy_generator(0, "codes of tokens").integers(
        0, 1 << 64, size=vocabulary, dtype=np.uint64
    )
    of_contexts = list(_sums(codes, stream, ends, longest))
    counts = np.zeros((len(ends), longest), dtype=np.int64)
    for first in range(0, len(train) - 1, BLOCK):
        places = np.arange(first, min(first + BLOCK, len(train) - 1))
        sums = np.zeros(len(places), dtype=np.uint64)
        asked = np.arange(len(ends))
        for length in range(1, longest + 1):
            asked = asked[lengths[asked] >= length]
            inside = places >= length - 1
            places, sums = places[inside], sums[inside]
            sums = _longer(sums, codes, train[places - length + 1], length)
            wanted, which = np.unique(of_contexts[length - 1][asked], return_inverse=True)
            if not (len(places) and len(wanted)):
                break
            at = np.minimum(np.searchsorted(wanted, sums), len(wanted) - 1)
            hit = wanted[at] == sums
            found = np.bincount(at[hit], minlength=len(wanted))[which]
            counts[asked, length - 1] += found
            asked, places, sums = asked[found > 0], places[hit], sums[hit]
    return counts


def _longer(
    sums: NDArray[np.uint64],
    codes: NDArray[np.uint64],
    tokens: NDArray[np.unsignedinteger],
    length: int,
) -> NDArray[np.uint64]:
    """Return sums with one token more on the left, which makes them sums of so many tokens."""
    power = np.uint64(pow(FACTOR, length - 1, 1 << 64))
    return sums + codes[tokens] * power


def _sums(
    codes: NDArray[np.uint64],
    stream: NDArray[np.unsignedinteger],
    ends: NDArray[np.int64],
    longest: int,
) -> Iterator[NDArray[np.uint64]]:
    """Yield the sums of the last 1, 2, ... tokens; before the text they mean nothing."""
    sums = np.zeros(len(ends), dtype=np.uint64)
    for length in range(1, longest + 1):
        sums = _longer(sums, codes, stream[np.maximum(ends - length + 1, 0)], length)
        yield sums
