"""What n-gram LMs of every order say of validation and test, as an artifact."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knnlm.lm.ngram import Documents, log_probs
from knnlm.runtime.artifacts import (
    ArtifactError,
    identity,
    load_array,
    read_manifest,
    rebuild_hint,
    require_origin,
    save_array,
)
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, making
from knnlm.text.tokens import load_tokens

KIND = "ngrams"
SPLITS = ("validation", "test")


def score_ngrams(target: Target, *, train: Path, tokens: Path, orders: Sequence[int]) -> None:
    """Count the n-grams of a train split, and score every token of validation and test.

    Args:
        target: the artifact.
        train: the token streams whose train split is counted.
        tokens: those whose validation and test are scored, of the same tokenizer.
        orders: of the LMs.

    Raises:
        ValueError: if an order is above what the documents of train have.
        ArtifactError: if the two are of different tokenizers.
    """
    described = read_manifest(train, kind="tokens")
    tokenizer = described["made_from"].get("tokenizer")
    if train != tokens:
        require_origin(tokens, kind="tokens", role="tokenizer", expected=tokenizer)
    vocabulary = described["contents"]["vocabulary_size"]
    with making(
        target,
        kind=KIND,
        made_from={
            "train": identity(train, kind="tokens"),
            "tokens": identity(tokens, kind="tokens"),
        },
        settings={"orders": list(orders)},
    ) as made:
        counted = _documents(train, "train")
        LOGGER.info("%s tokens, orders up to %s", f"{len(counted.tokens):,}", max(orders))
        scored = [_documents(tokens, split) for split in SPLITS]
        found = log_probs(counted, scored, orders=orders, vocabulary=vocabulary)
        for split, rows in zip(SPLITS, found, strict=True):
            save_array(made.folder / f"{split}.npy", rows)
        made.contents |= {"train_tokens": len(counted.tokens)}


def load_ngrams(folder: Path, split: str, *, tokens: str) -> dict[int, NDArray[np.float64]]:
    """Return the log-probability (n_tokens,) of each token of a split, by order, in nats.

    Args:
        folder: the artifact.
        split: validation or test.
        tokens: the identity of the token streams that they must be of.

    Raises:
        ArtifactError: if they are of other tokens.
    """
    require_origin(folder, kind=KIND, role="tokens", expected=tokens)
    orders = read_manifest(folder, kind=KIND)["settings"]["orders"]
    rows = load_array(folder / f"{split}.npy", dtype=np.float64)
    if len(rows) != len(orders):
        raise ArtifactError(f"expected {folder} to have a row an order; {rebuild_hint(folder)}")
    return dict(zip(orders, rows, strict=True))


def _documents(folder: Path, split: str) -> Documents:
    stream = load_tokens(folder, split)
    return Documents(np.asarray(stream.tokens), np.asarray(stream.documents))
