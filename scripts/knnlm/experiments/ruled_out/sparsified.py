"""Whether kNN helps because it takes probability from the tail of the vocabulary.

Xu et al. (2023) mix the LM with its own softmax, masked to the k likeliest tokens: kNN's mask-to-k
without a datastore.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knnlm.experiments.ruled_out.component import SPLITS, Component, Cost, save_component
from knnlm.experiments.ruled_out.subject import NUMBERS_AT_A_TIME, Subject
from knnlm.lm.architecture import OUTPUT_AFTER

METHOD = "sparsified_lm"


def stages(
    subject: Subject, settings: Mapping[str, Any], folder: Path
) -> dict[Path, Callable[[], None]]:
    """Return what is made, by the file that it is written to.

    Args:
        subject: the LM.
        settings: `k`, numbers of tokens that are left.
        folder: where the files go.
    """
    path = folder / f"{METHOD}.npz"
    return {path: lambda: save_component(path, _component(subject, settings["k"]))}


def masked_log_probs(logits: Tensor, targets: Tensor, ks: Sequence[int]) -> Tensor:
    """Return the log-probability of targets among the k likeliest tokens, renormalized.

    Args:
        logits: (n, V).
        targets: (n,) int64.
        ks: numbers of tokens that are left, each at most V.

    Returns:
        (n_k, n) float64, -inf where the target is not among them; of equally likely tokens the
        one of the smaller id is left.
    """
    log_p = logits.double().log_softmax(dim=1)
    of_target = log_p.gather(1, targets[:, None])
    tied = (log_p == of_target) & (
        torch.arange(log_p.shape[1], device=log_p.device) < targets[:, None]
    )
    rank = ((log_p > of_target) | tied).sum(dim=1)
    mass = log_p.topk(max(ks), dim=1).values.logcumsumexp(dim=1)
    left = [torch.where(rank < k, of_target[:, 0] - mass[:, k - 1], -torch.inf) for k in ks]
    return torch.stack(left).clamp_(max=0.0)  # rounding may put it 1e-16 above


def _component(subject: Subject, ks: Sequence[int]) -> Component:
    found = {}
    for split in SPLITS:
        states = torch.from_numpy(subject.hidden(split, OUTPUT_AFTER))
        targets = torch.from_numpy(subject.scored[split].targets.astype(np.int64))
        tile = max(1, NUMBERS_AT_A_TIME // len(subject.head))
        blocks = zip(states.split(tile), targets.split(tile), strict=True)
        device = subject.head.device
        found[split] = torch.cat(
            [
                masked_log_probs(rows.double().to(device) @ subject.head.T, some.to(device), ks)
                for rows, some in blocks
            ],
            dim=1,
        )
    # The logits are there already: the mask takes no matrix product and stores nothing.
    return Component(
        METHOD,
        "",
        "k",
        np.array(ks, dtype=np.float64),
        {split: one.cpu().numpy() for split, one in found.items()},
        Cost(0.0, 0.0),
    )
