"""Whether kNN helps because it brings a second metric, L2 beside the LM's inner product.

The LM scores a token by the inner product of its output embedding with the hidden state. Here the
tokens that kNN retrieved are scored by the negative squared L2 distance of the same embedding to
the same state: p(w) = softmax over retrieved tokens of -|W_w - h|^2 / temperature. What kNN adds
but for the metric, the keys, is not there.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knnlm.experiments.ruled_out.component import (
    SPLITS,
    VALIDATION,
    Component,
    Cost,
    save_component,
)
from knnlm.experiments.ruled_out.subject import NUMBERS_AT_A_TIME, Subject, squared_distances_to

METHOD = "output_distances"


def stages(
    subject: Subject, settings: Mapping[str, Any], folder: Path
) -> dict[Path, Callable[[], None]]:
    """Return what is made, by the file that it is written to: a distribution for each site.

    Args:
        subject: the LM.
        settings: `sites` of the hidden state, and `temperatures`.
        folder: where the files go.
    """
    files = {site: folder / f"{METHOD}-{site}.npz" for site in settings["sites"]}
    return {
        path: lambda site=site, path=path: save_component(
            path, _component(subject, site, settings["temperatures"])
        )
        for site, path in files.items()
    }


def retrieved_log_probs(
    distances: Tensor, retrieved: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """Return the log-probability of targets among the retrieved tokens, (n,) in nats.

    Args:
        distances: (n, V) float64, squared L2 of each output embedding to the hidden state.
        retrieved: (n, V) bool, the tokens that are values of neighbors.
        targets: (n,) int64.
        temperature: above 0.

    Returns:
        -inf where the target was not retrieved; NaN where nothing was, as in `knn_log_probs`.
    """
    scores = (-distances / temperature).masked_fill(~retrieved, -torch.inf)
    return scores.log_softmax(dim=1).gather(1, targets[:, None])[:, 0]


def _component(subject: Subject, site: str, series: Mapping[str, Any]) -> Component:
    relative = np.geomspace(series["low"], series["high"], series["count"])
    unit = _mean_distance(subject, site)
    log_probs = {}
    for split in SPLITS:
        found = [
            torch.stack([retrieved_log_probs(*tile, unit * one) for one in relative])
            for tile in _tiles(subject, split, site)
        ]
        log_probs[split] = torch.cat(found, dim=1).cpu().numpy()
    search = subject.knn_cost()
    k = subject.retrieved[VALIDATION].searched["k"]
    cost = Cost(search.flops + 2.0 * k * subject.head.shape[1], search.bytes)
    return Component(METHOD, site, "temperature", unit * relative, log_probs, cost)


def _mean_distance(subject: Subject, site: str) -> float:
    """Return the mean over queries of validation of the mean over their retrieved tokens."""
    means = [
        torch.where(retrieved, distances, 0.0).sum(dim=1) / retrieved.sum(dim=1)
        for distances, retrieved, _ in _tiles(subject, VALIDATION, site)
    ]
    return float(torch.cat(means).nanmean())


def _tiles(subject: Subject, split: str, site: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield distances, retrieved tokens and targets of some queries at a time."""
    head, device = subject.head, subject.head.device
    hidden, targets = subject.hidden(split, site), subject.scored[split].targets
    values = subject.retrieved_values(split)
    tile = max(1, NUMBERS_AT_A_TIME // len(head))
    for first in range(0, len(targets), tile):
        rows = slice(first, first + tile)
        some = torch.from_numpy(values[rows].astype(np.int64)).to(device)
        retrieved = torch.zeros(len(some), len(head) + 1, dtype=torch.bool, device=device)
        retrieved.scatter_(1, some.where(some >= 0, len(head)), True)  # missing ones come last
        yield (
            squared_distances_to(head, hidden[rows]),
            retrieved[:, :-1],
            torch.from_numpy(targets[rows].astype(np.int64)).to(device),
        )
