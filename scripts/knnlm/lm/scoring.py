"""Queries: what a language model says at sampled positions of a split, and its hidden states.

Query i is a position of the token stream; its target is the token after it. The positions
depend on the token stream and the settings alone, so every model of a corpus has the same ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from knnlm.lm.anatomy import capture, context, head_weight
from knnlm.lm.architecture import OUTPUT_AFTER, SITES, require_sites
from knnlm.lm.likelihood import log_likelihood_in_tiles
from knnlm.lm.model import load_model
from knnlm.lm.sampling import query_positions
from knnlm.lm.windows import Window, windows
from knnlm.runtime.artifacts import (
    atomic_path,
    identity,
    load_array,
    read_manifest,
    require_origin,
    save_array,
)
from knnlm.runtime.blocks import join_blocks
from knnlm.runtime.logs import Progress
from knnlm.runtime.making import Target, making
from knnlm.runtime.signals import stop_if_asked
from knnlm.text.tokens import TokenStream, load_tokens

BATCH_TOKENS = 1 << 12  # read in one forward pass
BLOCK_TOKENS = 1 << 17  # read for one block, the unit that a killed run keeps
TILE_LOGITS = 1 << 23  # held at once: 64 MiB in float64
LM_LOG_PROBS = "lm_log_probs"
DTYPES = {
    "positions": np.int64,
    "targets": np.int32,
    LM_LOG_PROBS: np.float64,
    "documents": np.int32,
    "words": np.uint8,
    "lines": np.uint8,
}


@dataclass(frozen=True)
class Queries:
    """Scored positions of one split, in the order of the text.

    Attributes:
        positions: (n,) int64, tokens of the stream; the token after each is its target.
        targets: (n,) int32, never the end-of-document token.
        lm_log_probs: (n,) float64, log p_LM(target) in nats.
        documents: (n,) int32, number of the document within the split.
        words: (n,) uint8, words that begin in the target.
        lines: (n,) uint8, line ends in the target.
        folder: the artifact.
    """

    positions: NDArray[np.int64]
    targets: NDArray[np.int32]
    lm_log_probs: NDArray[np.float64]
    documents: NDArray[np.int32]
    words: NDArray[np.uint8]
    lines: NDArray[np.uint8]
    folder: Path

    @property
    def n_queries(self) -> int:
        """The number of scored positions."""
        return len(self.positions)

    def hidden(self, site: str) -> NDArray[np.float32]:
        """Return the hidden states (n, d) at a site of the anatomy, memory-mapped.

        Raises:
            ValueError: if the site was not stored.
        """
        stored = [name for name in SITES if (self.folder / f"{name}.npy").is_file()]
        if site not in stored:
            raise ValueError(
                f"{self.folder} has no hidden states of {site}; expected one of {', '.join(stored)}"
            )
        return load_array(self.folder / f"{site}.npy", dtype=np.float32)


def load_queries(folder: Path) -> Queries:
    """Open a queries artifact, memory-mapped.

    Raises:
        ArtifactError: if it is not whole.
    """
    read_manifest(folder, kind="queries")
    return open_positions(folder)


def open_positions(folder: Path) -> Queries:
    """Open what `score_positions` wrote into a folder, memory-mapped."""
    arrays = {name: load_array(folder / f"{name}.npy", dtype=d) for name, d in DTYPES.items()}
    return Queries(**arrays, folder=folder)


def score_queries(
    target: Target,
    *,
    model: Path,
    tokens: Path,
    queries: dict[str, Any],
    sites: Sequence[str],
) -> None:
    """Score sampled positions of a split and write the queries artifact.

    Windows are as long as the model's context and move on by the stride; those without a query
    are not read.

    Args:
        target: the artifact; its names have the split.
        model: the model artifact.
        tokens: the tokens artifact, made with the model's tokenizer.
        queries: the block of the config: tokens, tokens_per_document, stride, seed.
        sites: hidden states to store, from the anatomy.

    Raises:
        ValueError: if a site is unknown, the stride is above the context, or no word fits.
        ArtifactError: if the inputs are not whole or of different tokenizers.
    """
    require_sites(sites)
    described, split = read_manifest(tokens, kind="tokens"), target.names["split"]
    tokenizer = described["made_from"]["tokenizer"]
    require_origin(model, kind="model", role="tokenizer", expected=tokenizer)
    with making(
        target,
        kind="queries",
        made_from={
            "model": identity(model, kind="model"),
            "tokens": identity(tokens, kind="tokens"),
        },
        settings={**queries, "split": split, "sites": list(sites)},
    ) as made:
        stream = load_tokens(tokens, split)
        if not (made.folder / "positions.npy").is_file():  # written last
            positions = query_positions(
                stream,
                tokens=queries["tokens"],
                tokens_per_document=queries["tokens_per_document"],
                seed=queries["seed"],
                end_of_document=described["contents"]["end_of_document"],
            )
            network = load_model(model).to("cuda" if torch.cuda.is_available() else "cpu")
            stride = queries["stride"]
            score_positions(made.folder, network, stream, positions, stride=stride, sites=sites)
        for block in made.folder.glob("block-*.npz"):
            block.unlink()
        made.contents |= _count(made.folder)


def score_positions(
    folder: Path,
    network: nn.Module,
    stream: TokenStream,
    positions: NDArray[np.int64],
    *,
    stride: int,
    sites: Sequence[str],
) -> None:
    """Score positions of a stream into a folder: the arrays of `Queries`, the positions last.

    Blocks that an interrupted job left there are not scored again; they stay until the caller
    removes them.

    Args:
        folder: of the arrays and the blocks.
        network: in eval mode.
        stream: one split.
        positions: (n,), ascending.
        stride: tokens a window moves on, at most the context.
        sites: hidden states to store, from the anatomy.
    """
    blocks = _score(folder, network, stream, positions, stride=stride, sites=sites)
    join_blocks(folder, blocks, n_queries=len(positions), names=(LM_LOG_PROBS, *sites))
    _describe(folder, stream, positions)


def _score(
    partial: Path,
    network: nn.Module,
    stream: TokenStream,
    positions: NDArray[np.int64],
    *,
    stride: int,
    sites: Sequence[str],
) -> list[Path]:
    """Write block after block of log-probabilities and states; skip those that are there."""
    length = context(network)
    cut = windows(stream.n_tokens, context=length, stride=stride)
    ends = np.searchsorted(positions, [window.stop for window in cut])
    wanted = [cut[i] for i in np.flatnonzero(np.diff(ends, prepend=0))]
    # What is computed together never depends on where a killed run goes on.
    size = max(1, BATCH_TOKENS // length)
    per_block = size * max(1, BLOCK_TOKENS // (size * length))
    firsts = range(0, len(wanted), per_block)
    paths = [partial / f"block-{number:05d}.npz" for number in range(len(firsts))]
    done = min(sum(path.is_file() for path in paths) * per_block, len(wanted))
    progress = Progress("scoring", total=len(wanted) * length, unit="tokens", done=done * length)
    for path, first in zip(paths, firsts, strict=True):
        if path.is_file():
            continue
        chosen = wanted[first : first + per_block]
        pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in (LM_LOG_PROBS, *sites)}
        for at in range(0, len(chosen), size):
            batch = chosen[at : at + size]
            for name, piece in _score_batch(network, stream, positions, batch, sites):
                pieces[name].append(piece)
            progress.update((first + at + len(batch)) * length)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: np.concatenate(found) for name, found in pieces.items()})
        stop_if_asked()
    return paths


@torch.inference_mode()
def _score_batch(
    network: nn.Module,
    stream: TokenStream,
    positions: NDArray[np.int64],
    batch: Sequence[Window],
    sites: Sequence[str],
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield log-probabilities (n,) and states (n, d) of the queries of windows of one length."""
    ids = np.stack([stream.tokens[window.start : window.stop] for window in batch])
    states = capture(
        network,
        torch.from_numpy(ids.astype(np.int64)).to(network.device),
        {*sites, OUTPUT_AFTER},
    )
    rows, columns, chosen = [], [], []
    for row, window in enumerate(batch):
        first, last = np.searchsorted(positions, [window.first, window.stop])
        chosen.append(positions[first:last])
        columns.append(chosen[-1] - window.start)
        rows.append(np.full(last - first, row))
    places = (np.concatenate(rows), np.concatenate(columns))
    states = {name: state[places] for name, state in states.items()}
    targets = torch.from_numpy(stream.tokens[np.concatenate(chosen) + 1].astype(np.int64))
    head, normed = network.get_output_embeddings(), states[OUTPUT_AFTER]
    yield (
        LM_LOG_PROBS,
        log_likelihood_in_tiles(
            lambda rows: head(normed[rows]),
            targets,
            vocabulary=len(head_weight(network)),
            logits_at_a_time=TILE_LOGITS,
        ),
    )
    for site in sites:
        yield site, states[site].float().cpu().numpy()


def _describe(partial: Path, stream: TokenStream, positions: NDArray[np.int64]) -> None:
    """Write what the stream says of each query; the positions last."""
    targets = positions + 1
    described = {
        "targets": stream.tokens[targets],
        "documents": np.searchsorted(stream.documents, targets, side="right") - 1,
        "words": stream.words[targets],
        "lines": stream.lines[targets],
        "positions": positions,
    }
    for name, array in described.items():
        save_array(partial / f"{name}.npy", array.astype(DTYPES[name]))


def _count(folder: Path) -> dict[str, int]:
    """Return how many queries and documents there are."""
    documents = load_array(folder / "documents.npy", dtype=np.int32)
    return {"queries": len(documents), "documents": len(np.unique(documents))}
