"""Tuning: the best point of the grid, and the same number when it is scored alone."""

import numpy as np
import pytest

from knnlm.retrieval.interpolation import mean_distance
from knnlm.retrieval.tuning import Point, nll_at, tune
from knnlm.runtime.seeds import numpy_generator

GRID = {
    "k": [1, 4, 16],
    "temperatures": {"low": 0.1, "high": 10.0, "count": 3},
    "lmbdas": {"low": 0.1, "high": 0.9, "count": 5},
}


@pytest.fixture
def scored():
    generator = numpy_generator(0, "tuning")
    distances = np.sort(generator.gamma(4.0, size=(50, 16)), axis=1).astype(np.float32)
    values = generator.integers(0, 5, size=(50, 16)).astype(np.int32)
    targets = generator.integers(0, 5, size=50).astype(np.int32)
    return distances, values, targets, np.log(generator.uniform(0.05, 0.9, size=50))


def test_axes_are_those_of_the_grid(scored):
    tuning = tune(*scored, grid=GRID)

    np.testing.assert_allclose(tuning.temperatures, [0.1, 1.0, 10.0], rtol=1e-12)
    np.testing.assert_allclose(tuning.lmbdas, [0.1, 0.3, 0.5, 0.7, 0.9], rtol=1e-12)
    assert tuning.distance == mean_distance(scored[0])
    assert tuning.nll.shape == (3, 3, 5)


def test_the_point_is_the_best_of_all_points_scored_one_by_one(scored):
    tuning = tune(*scored, grid=GRID)

    points = [
        Point(k=k, temperature=t * tuning.distance, lmbda=w)
        for k in tuning.ks
        for t in tuning.temperatures
        for w in tuning.lmbdas
    ]
    means = [nll_at(point, *scored).mean() for point in points]
    assert tuning.point == pytest.approx(points[int(np.argmin(means))])
    np.testing.assert_allclose(tuning.nll.ravel(), means, rtol=1e-10)


def test_only_the_first_k_neighbors_count(scored):
    distances, values, targets, lm_log_probs = scored
    point = Point(k=4, temperature=2.0, lmbda=0.5)

    alone = nll_at(point, distances[:, :4], values[:, :4], targets, lm_log_probs)

    np.testing.assert_array_equal(nll_at(point, *scored), alone)


def test_more_neighbors_than_were_stored_are_an_error(scored):
    with pytest.raises(ValueError, match="at least k = 17 stored neighbors, got 16; raise search"):
        nll_at(Point(k=17, temperature=1.0, lmbda=0.25), *scored)
    with pytest.raises(ValueError, match=r"raise search\.k"):
        tune(*scored, grid=GRID | {"k": [17]})
