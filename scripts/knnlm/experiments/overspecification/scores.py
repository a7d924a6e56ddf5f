"""How likely a model finds each child's name after each template, alone and with retrieval.

The likelihood is that of the name's one token given the text before it, in nats: Chiang et al.
(2024), Section 4. The datastore is the fine-tuning set, encoded by the model as it is now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from knnlm.lm.anatomy import apply_f, apply_g, capture
from knnlm.lm.architecture import FFN_INPUT_BEFORE
from knnlm.lm.finetuning import Texts
from knnlm.lm.likelihood import log_likelihood_in_tiles
from knnlm.retrieval.datastore import Datastore, in_memory
from knnlm.retrieval.engines.exact import search_exact
from knnlm.retrieval.interpolation import knn_log_probs, mean_distance

BATCH = 64  # texts read at a time


@dataclass(frozen=True)
class States:
    """What a model makes of some places in texts.

    Attributes:
        datastore_keys: (n_keys, d) fp32, hidden states at the places asked for, row by row.
        log_probs: (n_scored,) float64, of the next token at the places asked for, in nats.
    """

    datastore_keys: NDArray[np.float32]
    log_probs: NDArray[np.float64]


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
    targets, head = np.roll(texts.tokens, -1, axis=1), model.get_output_embeddings().weight
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
        residual = states[FFN_INPUT_BEFORE][places]
        scored.append(
            log_likelihood_in_tiles(
                lambda at, residual=residual: apply_f(model, apply_g(model, residual[at])),
                wanted[places],
                vocabulary=len(head),
            )
        )
    return States(torch.cat(kept).numpy(), np.concatenate(scored))


def find(
    queries: NDArray[np.float32], datastore: Datastore, *, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return distances and values, (n, k), of the nearest entries; k is at most their number."""
    n_entries = datastore.n_entries
    ids, distances = search_exact(queries, datastore, k=min(k, n_entries), slice_rows=n_entries)
    return distances, datastore.values(ids)


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
    unit = mean_distance(neighbors["validation"][0])
    found["mean_distance"] = np.array([unit])
    for split, texts in splits.items():
        targets = texts.targets.astype(np.int32)
        columns = [
            knn_log_probs(*neighbors[split], targets, temperature=share * unit)
            for share in temperatures
        ]
        found[f"knn_{split}"] = np.stack(columns, axis=1)
    return found
