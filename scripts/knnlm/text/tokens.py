"""Token streams: the documents of a split, encoded and joined, with what each token covers.

A document is the end-of-document token, then the tokens of its text. Token i covers the
characters from starts[i] to starts[i + 1] of the split's text, so tokens tile the text: a space
belongs to the token that it precedes, a character that two tokens share to the first of them,
and the end-of-document token covers nothing. Words and lines are counted by what a token covers.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knnlm.runtime.artifacts import ArtifactError, load_array, read_manifest, rebuild_hint


@dataclass(frozen=True)
class TokenStream:
    r"""One split as tokens. Arrays may be memory-mapped; they are never written.

    The words of WikiText's published perplexities are words + lines: fairseq ends every line
    with a token that counts as a word.

    Attributes:
        tokens: (n_tokens,) uint16 or uint32, by the size of the vocabulary.
        starts: (n_tokens,) int64, the first character of the split's text that a token covers.
        documents: (n_documents + 1,) int64, token offsets, from 0 to n_tokens.
        words: (n_tokens,) uint8, whitespace-separated words whose first character it covers.
        lines: (n_tokens,) uint8, how often it covers "\n".
    """

    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]
    documents: NDArray[np.int64]
    words: NDArray[np.uint8]
    lines: NDArray[np.uint8]

    @property
    def n_tokens(self) -> int:
        """The length of the stream, end-of-document tokens included."""
        return len(self.tokens)


def load_tokens(folder: Path, split: str) -> TokenStream:
    """Open one split of a tokens artifact, memory-mapped.

    Raises:
        ArtifactError: if the artifact is not whole, or its arrays do not fit together.
    """
    described = read_manifest(folder, kind="tokens")["contents"]
    dtypes = {
        "tokens": token_dtype(described["vocabulary_size"]),
        "starts": np.int64,
        "documents": np.int64,
        "words": np.uint8,
        "lines": np.uint8,
    }
    stream = TokenStream(
        **{
            name: load_array(array_path(folder, split, name), dtype=dtype)
            for name, dtype in dtypes.items()
        }
    )
    lengths = {len(getattr(stream, name)) for name in ("tokens", "starts", "words", "lines")}
    if lengths != {stream.n_tokens} or stream.documents[-1] != stream.n_tokens:
        raise ArtifactError(
            f"expected the arrays of {split} in {folder} to have {stream.n_tokens:,} tokens, got "
            f"lengths {sorted(lengths)} and documents up to {stream.documents[-1]:,}; "
            f"{rebuild_hint(folder)}"
        )
    return stream


def token_dtype(vocabulary_size: int) -> type[np.unsignedinteger]:
    """Return the smallest dtype for token ids, never a signed one: uint16 or uint32."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.uint32


def array_path(folder: Path, split: str, name: str) -> Path:
    """Return the file of one array of a `TokenStream` in a tokens artifact."""
    return folder / (f"{split}.npy" if name == "tokens" else f"{split}.{name}.npy")
