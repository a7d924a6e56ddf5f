"""The points of experiments that tune a kNN-LM themselves: all tuned, and with all neighbors."""

import numpy as np

from knnlm.retrieval.tuning import Point, Tuning


def points_of(tuning: Tuning) -> dict[str, Point]:
    """Return the best point, and the best with the largest k of the grid, as papers with one k."""
    k, temperature, lmbda = tuning.best_at_each_k[int(np.argmax(tuning.ks))]
    largest = Point(
        k=int(tuning.ks[k]),
        temperature=float(tuning.temperatures[temperature] * tuning.distance),
        lmbda=float(tuning.lmbdas[lmbda]),
    )
    return {"largest_k": largest, "tuned": tuning.point}
