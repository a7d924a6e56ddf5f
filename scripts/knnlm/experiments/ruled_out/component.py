"""What is mixed with the LM in the place of kNN's distribution, and how the mixture is tuned.

Every hypothesis of Xu et al. (2023) about why kNN-LMs work names a distribution that should then
do as well. It is mixed with the LM as kNN's is, (1 - lmbda) p_LM + lmbda p, and both lmbda and
the option that the distribution has, such as a temperature, are tuned on validation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.retrieval.interpolation import mean_nll, mix_log_probs
from knnlm.runtime.artifacts import atomic_path

SPLITS = VALIDATION, TEST = ("validation", "test")
NO_OPTION = ""  # of a distribution in which nothing is tuned but its weight


class Cost(NamedTuple):
    """What a distribution takes beside the LM: counted FLOPs of a token, and bytes stored."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Component:
    """A distribution in the place of kNN's, at every value of its option.

    Attributes:
        method: the hypothesis, the method's name in tables.
        variant: which of its forms, such as a site; "" if there is one.
        option: what is tuned beside lmbda, such as the temperature; "" for nothing.
        values: (n_options,), the values of the option that are tried; one if there is none.
        log_probs: by split (n_options, n) float64, the log-probability of each target in nats;
            -inf where it is 0.
        cost: beside the LM's.
    """

    method: str
    variant: str
    option: str
    values: NDArray[np.float64]
    log_probs: Mapping[str, NDArray[np.float64]]
    cost: Cost


class Mixture(NamedTuple):
    """The place of an option, and the weight on the distribution."""

    place: int
    lmbda: float


def mixed_nll(
    component: Component, split: str, lm_nll: NDArray[np.float64], mixture: Mixture
) -> NDArray[np.float64]:
    """Return the nll of a mixture of the LM and a distribution, (n,) in nats.

    Args:
        component: the distribution.
        split: validation or test.
        lm_nll: (n,), of the LM on this split.
        mixture: the option and the weight.
    """
    return -mix_log_probs(-lm_nll, component.log_probs[split][mixture.place], mixture.lmbda)


def best_mixture(
    component: Component,
    split: str,
    lm_nll: NDArray[np.float64],
    lmbdas: NDArray[np.float64],
) -> Mixture:
    """Return the option and the weight of the least mean nll on a split; of equal ones, the first.

    Args:
        component: the distribution.
        split: on which it is tuned.
        lm_nll: (n,), of the LM on this split.
        lmbdas: weights that are tried, each in [0, 1).
    """
    nll = mean_nll(-lm_nll, np.exp(component.log_probs[split]), lmbdas)
    place, weight = np.unravel_index(np.argmin(nll), nll.shape)
    return Mixture(int(place), float(lmbdas[weight]))


def save_component(path: Path, component: Component) -> None:
    """Write a distribution, atomically."""
    named = {name: getattr(component, name) for name in ("method", "variant", "option", "values")}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, cost=np.array(component.cost), **named, **component.log_probs)


def read_component(path: Path) -> Component:
    """Read a distribution that `save_component` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    return Component(
        **{name: str(arrays[name]) for name in ("method", "variant", "option")},
        values=arrays["values"],
        log_probs={split: arrays[split] for split in SPLITS},
        cost=Cost(*arrays["cost"].tolist()),
    )
