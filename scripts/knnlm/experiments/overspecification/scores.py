"""How likely a model finds each child's name after each template, alone and with retrieval.

The likelihood is that of the name's one token given the text before it, in nats: Chiang et al.
(2024), Section 4. The datastore is the fine-tuning set, encoded by the model as it is now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from knnlm.lm.anatomy import FFN_INPUT_BEFORE, apply_f, apply_g, capture
from knnlm.lm.finetuning import Texts
from knnlm.retrieval.datastore import Datastore, Shard
from knnlm.retrieval.engines.exact import search_exact
from knnlm.retrieval.interpolation import knn_log_probs, mean_distance

BATCH = 64  # texts read at a time
LOGITS_AT_A_TIME = 1 << 22  # 32 MiB in float64


@dataclass(frozen=True)
class States:
    """What a model makes of some places in texts.

    Attributes:
        datastore_keys: (n_keys, d) fp32, hidden states at the places asked for, row by row.
        log_probs: (n_scored,) float64, of the next token at the places asked for, in nats.
    """

    datastore_keys: NDArray[np.float32]
    log_probs: NDArray[np.float64]


@dataclass(frozen=True)
class Neighbors:
    """The nearest entries of each query: squared distances, ascending, and values, (n, k)."""

    distances: NDArray[np.float32]
    values: NDArray[np.int32]

    def log_probs(self, targets: NDArray[np.int64], *, temperature: float) -> NDArray[np.float64]:
        """Return log p_kNN of the targets, (n,), in nats."""
        wanted = targets.astype(np.int32)
        return knn_log_probs(self.distances, self.values, wanted, temperature=temperature)


@torch.no_grad()
def read_states(
    model: nn.Module,
    texts: Texts,
    *,
    keys_at: NDArray[np.bool_],
    scored_at: NDArray[np.bool_],
    site: str,
) -> States:
    """Read texts once; keep hidden states at some places, and score the next token at others.

    The head is computed for the scored places alone.

    Args:
        model: in eval mode.
        texts: they begin at position 0.
        keys_at: (n, T), where the hidden state at `site` is kept.
        scored_at: (n, T), where the next token is scored.
        site: see `knnlm.lm.anatomy.SITES`.
    """
    targets = np.roll(texts.tokens, -1, axis=1)
    kept, scored = [], []
    for start in range(0, len(texts), BATCH):
        rows = slice(start, start + BATCH)
        longest = texts.lengths[rows].max()
        tokens, keys, places, wanted = (
            torch.from_numpy(np.ascontiguousarray(array[rows, :longest])).to(model.device)
            for array in (texts.tokens, keys_at, scored_at, targets)
        )
        states = capture(model, tokens, {FFN_INPUT_BEFORE, site})
        kept.append(states[site][keys].float().cpu())
        scored.append(_score(model, states[FFN_INPUT_BEFORE][places], wanted[places]))
    return States(torch.cat(kept).numpy(), torch.cat(scored).numpy())


def _score(model: nn.Module, residual: Tensor, targets: Tensor) -> Tensor:
    """Return log p(target), float64, from (n, d) residual streams before the last MLP."""
    size = max(1, LOGITS_AT_A_TIME // len(model.get_output_embeddings().weight))
    pieces = [
        apply_f(model, apply_g(model, part)).double().log_softmax(dim=-1).gather(1, wanted[:, None])
        for part, wanted in zip(residual.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(pieces).squeeze(1).cpu()


def in_memory(datastore_keys: NDArray[np.float32], values: NDArray[np.int64]) -> Datastore:
    """Return keys and values as a datastore that was never written."""
    shard = Shard(0, datastore_keys, values.astype(np.int32))
    return Datastore(
        folder=Path("the fine-tuning set"),
        shards=(shard,),
        n_entries=len(values),
        dim=datastore_keys.shape[1],
        dtype=datastore_keys.dtype,
        rows_per_shard=len(values),
        settings={},
        made_from={},
        rows=range(len(values)),
    )


def find(queries: NDArray[np.float32], datastore: Datastore, *, k: int) -> Neighbors:
    """Return the k nearest entries of each query, all of them if there are fewer."""
    n_entries = datastore.n_entries
    ids, distances = search_exact(queries, datastore, k=min(k, n_entries), slice_rows=n_entries)
    return Neighbors(distances, datastore.values(ids))


def score_children(
    model: nn.Module,
    splits: Mapping[str, Texts],
    *,
    site: str,
    k: int,
    temperatures: Sequence[float],
) -> dict[str, NDArray[Any]]:
    """Return the log-likelihood of every child's name in each split, for the LM and for p_kNN.

    Args:
        model: in eval mode.
        splits: train, which is also the datastore, validation and test.
        site: of the keys.
        k: neighbors.
        temperatures: relative to the mean squared distance of the neighbors of validation.

    Returns:
        For each split lm_{split} (n,), knn_{split} (n, n_temperatures), both float64 in nats,
        and queries_{split} (n, d) fp32; keys (n_entries, d) fp32 and values (n_entries,) int64
        of the datastore; mean_distance (1,). A training sentence finds itself in the datastore.
    """
    train = splits["train"]
    found: dict[str, NDArray[Any]] = {"values": train.next_tokens(train.has_next)}
    for split, texts in splits.items():
        at = texts.before_answer
        keys_at = texts.has_next if split == "train" else at
        states = read_states(model, texts, keys_at=keys_at, scored_at=at, site=site)
        found[f"lm_{split}"] = states.log_probs
        found[f"queries_{split}"] = states.datastore_keys
        if split == "train":
            found["keys"] = states.datastore_keys
            found["queries_train"] = states.datastore_keys[at[keys_at]]
    datastore = in_memory(found["keys"], found["values"])
    neighbors = {split: find(found[f"queries_{split}"], datastore, k=k) for split in splits}
    unit = mean_distance(neighbors["validation"].distances)
    found["mean_distance"] = np.array([unit])
    for split, texts in splits.items():
        columns = [
            neighbors[split].log_probs(texts.targets, temperature=share * unit)
            for share in temperatures
        ]
        found[f"knn_{split}"] = np.stack(columns, axis=1)
    return found
