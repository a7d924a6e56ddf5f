"""Encoding: the documents of a text artifact become the token streams of a tokens artifact."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from knnlm.runtime.artifacts import identity, read_manifest, save_array
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import Target, making
from knnlm.text.documents import SPLITS, read_documents
from knnlm.text.tokenizer import parts, read_tokenizer
from knnlm.text.tokens import TokenStream, array_path, token_dtype

BATCH_CHARACTERS = 1 << 22  # encoded at once: some hundred MB while it lasts
WHITESPACE = np.array([chr(code).isspace() for code in range(0x3002)])  # U+3000 is the last


def tokenize_corpus(
    target: Target, *, text: Path, tokenizer: Path, needed: Mapping[str, Mapping[str, int]]
) -> None:
    """Write a tokens artifact: {split}.npy, and .starts, .documents, .words and .lines beside it.

    Args:
        target: the artifact.
        text: the text artifact.
        tokenizer: the tokenizer artifact.
        needed: the tokens that later steps need of each split, by the setting that asks for them,
            such as the context of the models or k. Checked here, before anything expensive starts.

    Raises:
        ValueError: if a split is too short.
    """
    described = read_manifest(text, kind="text")["contents"]
    vocabulary = read_manifest(tokenizer, kind="tokenizer")["contents"]
    reader = read_tokenizer(tokenizer)
    with making(
        target,
        kind="tokens",
        made_from={
            "text": identity(text, kind="text"),
            "tokenizer": identity(tokenizer, kind="tokenizer"),
        },
        settings={},
    ) as made:
        made.contents |= vocabulary
        for split in SPLITS:
            stream = encode_documents(
                reader,
                read_documents(text, split),
                end_of_document=vocabulary["end_of_document"],
                dtype=token_dtype(vocabulary["vocabulary_size"]),
                progress=Progress(
                    f"tokens of {split}", total=described[split]["characters"], unit="characters"
                ),
            )
            _require_tokens(split, stream.n_tokens, needed[split])
            counted = {
                "tokens": stream.n_tokens,
                "documents": len(stream.documents) - 1,
                "words": int(stream.words.sum(dtype=np.int64)),
                "lines": int(stream.lines.sum(dtype=np.int64)),
            }
            made.contents[split] = counted
            assert all(counted[key] == described[split][key] for key in ("words", "lines"))
            for field in fields(TokenStream):
                save_array(array_path(made.folder, split, field.name), getattr(stream, field.name))


def _require_tokens(split: str, n_tokens: int, needed: Mapping[str, int]) -> None:
    setting = max(needed, key=needed.__getitem__)
    if n_tokens < needed[setting]:
        raise ValueError(
            f"expected the {split} split to have at least {needed[setting]:,} tokens, which "
            f"{setting} asks for, got {n_tokens:,}; use more text, or lower that setting"
        )


def encode_documents(
    tokenizer: Tokenizer,
    documents: Iterable[str],
    *,
    end_of_document: int,
    dtype: type[np.unsignedinteger],
    progress: Progress | None = None,
) -> TokenStream:
    """Return the stream of documents, encoded in batches by the library's threads.

    Memory is twice the 12 bytes a token takes while the batches are joined, and some hundred MB
    for the batch at hand: about 3 GB for WikiText-103.

    Args:
        tokenizer: from `read_tokenizer`.
        documents: their texts, in order; they are the whole text when joined.
        end_of_document: the id that each document begins with.
        dtype: of the ids.
        progress: told how many characters are done.

    Raises:
        ValueError: if a token covers more than 255 words or lines.
    """
    batches: list[TokenStream] = []
    n_characters = n_tokens = 0
    for batch in _batches(documents, cut=_cutter(tokenizer)):
        stream = _encode_batch(tokenizer, batch, end_of_document=end_of_document, dtype=dtype)
        # In place: these arrays are nobody else's yet.
        np.add(stream.starts, n_characters, out=stream.starts)
        np.add(stream.documents, n_tokens, out=stream.documents)
        batches.append(stream)
        n_characters += sum(len(part) for part, _ in batch)
        n_tokens += stream.n_tokens
        if progress is not None:
            progress.update(n_characters)
    joined = {
        field.name: np.concatenate([getattr(stream, field.name) for stream in batches])
        for field in fields(TokenStream)
    }
    return TokenStream(**joined | {"documents": np.append(joined["documents"], n_tokens)})


def _cutter(tokenizer: Tokenizer) -> Callable[[str], Iterable[str]]:
    """Return what cuts long documents: `parts` if a space begins a new piece, or else nothing."""
    both, first, second = (
        tokenizer.encode(text, add_special_tokens=False).ids for text in ("a a", "a", " a")
    )
    return parts if both == first + second else lambda document: [document]


def _batches(
    documents: Iterable[str], *, cut: Callable[[str], Iterable[str]]
) -> Iterator[list[tuple[str, bool]]]:
    """Yield parts, and whether each begins a document, in lists of about `BATCH_CHARACTERS`."""
    batch: list[tuple[str, bool]] = []
    size = 0
    for document in documents:
        for number, part in enumerate(cut(document)):
            batch.append((part, number == 0))
            size += len(part)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _encode_batch(
    tokenizer: Tokenizer,
    batch: list[tuple[str, bool]],
    *,
    end_of_document: int,
    dtype: type[np.unsignedinteger],
) -> TokenStream:
    """Return the stream of one batch; its documents have no end yet."""
    texts = [part for part, _ in batch]
    ids: list[NDArray[np.unsignedinteger]] = []
    starts: list[NDArray[np.int64]] = []
    heads: list[int] = []
    position = n_tokens = 0
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    for (part, begins), encoding in zip(batch, encodings, strict=True):
        if begins:
            heads.append(n_tokens)
            ids.append(np.array([end_of_document], dtype=dtype))
            starts.append(np.array([position], dtype=np.int64))
            n_tokens += 1
        ids.append(np.array(encoding.ids, dtype=dtype))
        starts.append(position + _starts(encoding))
        n_tokens += len(encoding)
        position += len(part)
    covered = np.concatenate(starts)
    bounds = np.append(covered, position)
    space, line_end = _characters("".join(texts))
    word_start = ~space
    word_start[1:] &= space[:-1]
    return TokenStream(
        tokens=np.concatenate(ids),
        starts=covered,
        documents=np.array(heads, dtype=np.int64),
        words=_count(word_start, bounds),
        lines=_count(line_end, bounds),
    )


def _starts(encoding: Encoding) -> NDArray[np.int64]:
    """Return the first character that each token covers and no token before it does."""
    offsets = np.fromiter(
        chain.from_iterable(encoding.offsets), dtype=np.int64, count=2 * len(encoding)
    )
    starts = np.zeros(len(encoding), dtype=np.int64)
    np.maximum.accumulate(offsets[1:-1:2], out=starts[1:])
    return starts


def _characters(text: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each character whether it is whitespace (as in str.split) and a line end."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return WHITESPACE[np.minimum(codes, len(WHITESPACE) - 1)], codes == ord("\n")


def _count(marks: NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how many marks lie from each bound to the next."""
    counts = np.diff(np.concatenate([[0], np.cumsum(marks)])[bounds])
    if counts.max() > np.iinfo(np.uint8).max:
        raise ValueError(
            f"expected a token to cover at most 255 words or lines, got {counts.max():,}; use a "
            "byte-level tokenizer (tokenizer: {source: trained})"
        )
    return counts.astype(np.uint8)
