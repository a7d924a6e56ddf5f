"""Windows over a token stream: with left context for reading, shuffled for training."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.seeds import numpy_generator


class Window(NamedTuple):
    """Tokens [start, stop) are read; what is computed at positions [first, stop) is kept."""

    start: int
    stop: int
    first: int


def windows(n_tokens: int, *, context: int, stride: int) -> list[Window]:
    """Return consecutive windows that keep every position exactly once.

    The first window keeps all its positions; each later one moves on by `stride` and keeps the
    new ones, which see at least `context - stride` earlier tokens. The last one moves on by what
    is left and is as long as the others, so that all windows have one length.

    Args:
        n_tokens: length of the stream, at least 1.
        context: tokens a window reads; all of them if the stream is shorter.
        stride: new positions of each window, at most `context`.

    Raises:
        ValueError: if the stream is empty or the stride is not in 1..context.
    """
    if n_tokens < 1:
        raise ValueError(f"expected a stream of at least 1 token, got {n_tokens}")
    if not 1 <= stride <= context:
        raise ValueError(
            f"stride must be between 1 and the context of {context} tokens, got {stride}; "
            "lower it in config.yaml"
        )
    stop = min(context, n_tokens)
    found = [Window(0, stop, 0)]
    while stop < n_tokens:
        first, stop = stop, min(stop + stride, n_tokens)
        found.append(Window(stop - context, stop, first))
    return found


class ShuffledWindows:
    """An endless, reproducible order of training windows of one token stream.

    Every epoch cuts the stream into consecutive windows from a random offset and shuffles them.
    The order is a function of the seed and the number of the window alone, so training can go
    on from any step, and a longer run begins exactly as a shorter one.
    """

    def __init__(self, n_tokens: int, *, context: int, seed: int) -> None:
        """Prepare the order; nothing is drawn yet.

        Args:
            n_tokens: length of the stream.
            context: tokens a window reads; the token after each is its target.
            seed: of the offsets and the order.

        Raises:
            ValueError: if the stream is too short for one window.
        """
        if n_tokens < context + 1:
            raise ValueError(
                f"expected at least {context + 1:,} tokens to train on (one window of context "
                f"{context:,} and its last target), got {n_tokens:,}; use more text or lower "
                "the model's context in config.yaml"
            )
        self.context = context
        self.seed = seed
        self.per_epoch = max(1, n_tokens // context - 1)
        self.n_offsets = min(context, n_tokens - self.per_epoch * context)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def _draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        generator = numpy_generator(self.seed, "windows", epoch)
        offset = generator.integers(self.n_offsets)
        return offset + self.context * generator.permutation(self.per_epoch)

    def starts(self, first: int, count: int) -> NDArray[np.int64]:
        """Return where windows number `first` to `first + count - 1` of the order start."""
        numbers = np.arange(first, first + count)
        epochs, places = np.divmod(numbers, self.per_epoch)
        return np.array([self._epoch(e)[p] for e, p in zip(epochs, places, strict=True)])
