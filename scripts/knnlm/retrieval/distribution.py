"""The kNN distribution over tokens: what neighbors weigh, and what their values add up to.

`knnlm.retrieval.interpolation` gives log p_kNN of one target for many settings; this is the same
distribution at one setting, over all of its tokens.
"""

import math

import torch
from torch import Tensor


def knn_weights(distances: Tensor, neighbor_values: Tensor, *, temperature: float) -> Tensor:
    """Return the weight of each neighbor: a softmax over the negative distances.

    Khandelwal et al. (2020), Eq. 2, with the temperature of Xu et al. (2023).

    Args:
        distances: (n, k) float, squared L2; +inf where a neighbor is missing.
        neighbor_values: (n, k) integer, the token after each neighbor; whatever stands
            beside an infinite distance never counts, nor does a value below 0.
        temperature: above 0, in units of squared distance.

    Returns:
        (n, k) float64, each row summing to 1; 0 for a missing neighbor.

    Raises:
        ValueError: if a shape or the temperature is not as above, a distance is not a number,
            or a query has no neighbor at all.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if distances.ndim != 2 or distances.shape != neighbor_values.shape:
        raise ValueError(
            "expected distances (n, k) and neighbor_values (n, k), got "
            f"{tuple(distances.shape)} and {tuple(neighbor_values.shape)}"
        )
    if distances.isnan().any():
        raise ValueError("expected distances that are numbers, got nan; search again")
    scores = (-distances.double() / temperature).masked_fill(neighbor_values < 0, -math.inf)
    lonely = int((~scores.isfinite().any(dim=1)).sum())
    if lonely:
        raise ValueError(
            f"expected at least one neighbor for each query, got none for {lonely} of "
            f"{len(scores)}; search more lists, or leave those queries out"
        )
    return scores.softmax(dim=1)


def knn_distribution(
    distances: Tensor, neighbor_values: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return p_kNN as its distinct values and their probabilities.

    The weights of the neighbors, summed over those that share a value.

    Args:
        distances: (n, k), see `knn_weights`, which also says what is raised.
        neighbor_values: (n, k).
        temperature: above 0, in units of squared distance.

    Returns:
        values (n, width) int64, no token twice in a row among those with a probability above
        0, and probabilities (n, width) float64, each row summing to 1. The width is the
        largest number of distinct values of a query; unused places hold token 0 and 0.
    """
    weights = knn_weights(distances, neighbor_values, temperature=temperature)
    found = distances.isfinite() & (neighbor_values >= 0)
    nearest = neighbor_values.gather(1, weights.argmax(dim=1, keepdim=True))
    known = torch.where(found, neighbor_values, nearest).long()  # adds a weight of 0 to it
    ordered, order = known.sort(dim=1, stable=True)
    weights = weights.gather(1, order)
    opens = ordered.diff(dim=1, prepend=ordered.new_full((len(ordered), 1), -1)) != 0
    place = opens.cumsum(dim=1) - 1
    width = int(place.max()) + 1
    values = ordered.new_zeros(len(ordered), width).scatter_(1, place, ordered)
    probabilities = weights.new_zeros(len(ordered), width).scatter_add_(1, place, weights)
    return values, probabilities
