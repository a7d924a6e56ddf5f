"""Which positions of a split are scored: spans of whole words, spread over its documents."""

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.seeds import numpy_generator
from knnlm.text.tokens import TokenStream


def query_positions(
    stream: TokenStream,
    *,
    tokens: int | None,
    tokens_per_document: int | None,
    seed: int,
    end_of_document: int,
) -> NDArray[np.int64]:
    """Return the positions whose next token is scored, ascending.

    Documents come in a random order. Each gives one span of consecutive targets at a random
    place: it begins where a word does, or with the document, and ends before a word, or with
    the document, so that whole words are scored. The first token of a document is predicted
    from the end-of-document token before it, which itself is never a target.

    Args:
        stream: the split.
        tokens: targets of all documents together, at most; the last span is cut to it. None
            takes every document.
        tokens_per_document: targets of one document, at most; None takes whole documents.
        seed: of the order and the places.
        end_of_document: the token with which every document begins.

    Returns:
        (n,) int64, at least one.

    Raises:
        ValueError: if a document does not begin with its token, or not one word fits.
    """
    first = stream.tokens[stream.documents[:-1]]
    if not (first == end_of_document).all():
        raise ValueError(
            f"expected every document to begin with token {end_of_document}, got "
            f"{first[first != end_of_document][0]}; the tokens are of another tokenizer"
        )
    if tokens is None and tokens_per_document is None:
        is_target = np.ones(stream.n_tokens, dtype=bool)
        is_target[stream.documents[:-1]] = False
        return np.flatnonzero(is_target) - 1
    generator = numpy_generator(seed, "queries")
    left = stream.n_tokens if tokens is None else tokens
    longest = stream.n_tokens if tokens_per_document is None else tokens_per_document
    spans = [np.empty(0, dtype=np.int64)]
    for document in generator.permutation(len(stream.documents) - 1):
        begin, end = int(stream.documents[document]) + 1, int(stream.documents[document + 1])
        limit = min(left, longest)
        start, stop = _span(stream, begin, end, limit=limit, place=generator.random())
        spans.append(np.arange(start, stop) - 1)
        left -= stop - start
        cut_by_the_total = limit < min(longest, end - begin)
        if left == 0 or cut_by_the_total:
            break
    found = np.sort(np.concatenate(spans))
    if len(found) == 0:
        raise ValueError(
            f"not one whole word fits into queries.tokens = {tokens} and "
            f"queries.tokens_per_document = {tokens_per_document}; raise them in config.yaml"
        )
    return found


def _span(
    stream: TokenStream, begin: int, end: int, *, limit: int, place: float
) -> tuple[int, int]:
    """Return start and stop of at most `limit` targets among [begin, end) at a place in [0, 1)."""
    if end - begin <= limit:
        return begin, end
    inside = np.flatnonzero(stream.words[begin + 1 : end]) + begin + 1
    borders = np.concatenate([[begin], inside, [end]])
    n_starts = np.searchsorted(borders, end - limit, side="right")
    start = borders[int(place * n_starts)]
    stop = borders[np.searchsorted(borders, start + limit, side="right") - 1]
    return int(start), int(stop)
