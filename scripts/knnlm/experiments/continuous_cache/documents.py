"""Whole documents as an LM reads them: the states that every cache is scored from, stored once.

The state is the LM's output hidden state, which its head multiplies, as in Grave et al. (2017).
Beside them the control: the queries of test scored by the same LM with more left context.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from knnlm.lm.anatomy import context
from knnlm.lm.architecture import OUTPUT_AFTER
from knnlm.lm.model import load_model
from knnlm.lm.sampling import query_positions
from knnlm.lm.scoring import Queries, open_positions, score_positions
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, require_origin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, each_missing, making
from knnlm.text.tokens import TokenStream, load_tokens

KIND = "documents"
MORE_CONTEXT = "more_context"  # the same LM with more left context, as a method of the table
CONTROL = f"test.{MORE_CONTEXT}"  # and the queries of test as it scored them
SPLIT_OF = {"validation": "validation", "test": "test", CONTROL: "test"}
WHOLE = {"tokens": None, "tokens_per_document": None}  # in the place of a sample of queries


def encode_documents(
    target: Target,
    *,
    model: Path,
    tokens: Path,
    queries: Mapping[str, Any],
    sizes: Sequence[int],
    more_context_stride: int,
) -> None:
    """Score every position of validation and test, and the queries of test with more context.

    Args:
        target: the artifact, with a folder for each of `SPLIT_OF`.
        model: the LM.
        tokens: the token streams, made with its tokenizer.
        queries: the block of the config; documents are read in windows of its stride, so that
            their states are those of the queries.
        sizes: of the caches.
        more_context_stride: tokens that the windows of the control move on.

    Raises:
        ValueError: if every document is shorter than the smallest cache.
        ArtifactError: if the model has another tokenizer.
    """
    described = read_manifest(tokens, kind="tokens")
    tokenizer = described["made_from"]["tokenizer"]
    require_origin(model, kind="model", role="tokenizer", expected=tokenizer)
    streams = {split: load_tokens(tokens, split) for split in ("validation", "test")}
    for split, stream in streams.items():
        require_room(stream, split, sizes)
    with making(
        target,
        kind=KIND,
        made_from={
            "model": identity(model, kind="model"),
            "tokens": identity(tokens, kind="tokens"),
        },
        settings={**queries, "more_context_stride": more_context_stride},
    ) as made:
        network = load_model(model).to("cuda" if torch.cuda.is_available() else "cpu")
        files = {part: made.folder / part / "positions.npy" for part in SPLIT_OF}
        for part in each_missing(files, label="documents", name="parts"):
            is_control, stream = part == CONTROL, streams[SPLIT_OF[part]]
            chosen = {**queries} if is_control else {**queries, **WHOLE}
            stride = chosen.pop("stride")
            positions = query_positions(
                stream, **chosen, end_of_document=described["contents"]["end_of_document"]
            )
            score_positions(
                made.folder / part,
                network,
                stream,
                positions,
                stride=more_context_stride if is_control else stride,
                sites=[OUTPUT_AFTER],
            )
        for block in made.folder.glob("*/block-*.npz"):
            block.unlink()
        strides = {"lm": queries["stride"], MORE_CONTEXT: more_context_stride}
        made.contents["left_context"] = {
            method: context(network) - stride for method, stride in strides.items()
        }


def require_room(stream: TokenStream, split: str, sizes: Sequence[int]) -> None:
    """Check that some document has as much of a past as the smallest cache holds.

    Larger caches than any document can fill are told of: they all hold the same.

    Raises:
        ValueError: naming the split, what was expected and what was given.
    """
    longest = int(np.diff(stream.documents).max()) - 1  # the last token has no next one
    if longest < min(sizes):
        raise ValueError(
            f"expected continuous_cache.sizes to have one up to {longest:,}, the positions of the "
            f"longest document of {split}, got {min(sizes):,} as the smallest: no document could "
            "fill a cache; lower it or use longer documents"
        )
    beyond = sorted(size for size in sizes if size > longest)
    if len(beyond) > 1:
        LOGGER.warning(
            "no document of %s has more than %s positions, so caches of %s hold the same",
            *(split, f"{longest:,}", ", ".join(map(str, beyond))),
        )


def open_part(folder: Path, part: str) -> Queries:
    """Open one part of the artifact, memory-mapped; only `OUTPUT_AFTER` is stored.

    Raises:
        ArtifactError: if the artifact is not whole.
    """
    read_manifest(folder, kind=KIND)
    return open_positions(folder / part)


def rows_of(whole: Queries, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of some positions among those of whole documents.

    Raises:
        ArtifactError: if one is missing.
    """
    rows = np.searchsorted(whole.positions, positions)
    if not np.array_equal(whole.positions[np.minimum(rows, whole.n_queries - 1)], positions):
        raise ArtifactError(f"expected {whole.folder} to have every scored position, one is not")
    return rows
