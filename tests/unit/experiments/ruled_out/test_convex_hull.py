"""A vector is outside the hull of the others exactly if some direction has it as strict maximum."""

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from knnlm.experiments.ruled_out.convex_hull import (
    How,
    Points,
    settle_by_directions,
    settle_by_program,
)

OUTSIDE = {How.DIRECTION, How.STEPS, How.PROGRAM}


def settle(vectors, *, steps=5, random=8):
    """Return how each vector is certified, by directions first and programs for the rest."""
    points = Points.of(torch.as_tensor(np.asarray(vectors, dtype=np.float64)))
    how, direction = settle_by_directions(points, random=random, steps=steps, seed=0)
    for place in np.flatnonzero(how == How.UNDECIDED):
        how[place] = settle_by_program(points, int(place), direction[place])
    return how


def outside(how):
    return set(np.flatnonzero(np.isin(how, list(OUTSIDE))).tolist())


def test_the_corners_of_a_square_are_outside_and_its_middle_is_inside():
    how = settle([[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0], [0.5, 0.2]])

    assert outside(how) == {0, 1, 2, 3}
    assert how[4] == how[5] == How.INSIDE


def test_a_vector_on_the_border_and_one_of_two_equal_ones_are_never_the_strict_maximum():
    how = settle([[1, 1], [1, -1], [-1, 1], [-1, -1], [1, 0], [2, 2], [2, 2]])

    assert outside(how) == {1, 2, 3}  # (1, 1) lies between (2, 2) and the rest
    assert (how[[0, 4, 5, 6]] == How.INSIDE).all()


@pytest.mark.parametrize("dim", [2, 3, 4])
@pytest.mark.parametrize("steps", [0, 50])
def test_the_vectors_outside_are_the_vertices_that_qhull_finds(dim, steps):
    vectors = np.random.default_rng(dim).normal(size=(60, dim))

    how = settle(vectors, steps=steps)

    assert outside(how) == set(ConvexHull(vectors).vertices.tolist())
    assert (how != How.UNDECIDED).all()
    assert (how == How.INSIDE).any()


def test_an_interior_vector_is_found_where_a_hull_could_not_be_built():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(300, 40)) * np.arange(1, 41) ** -0.5
    weights = generator.dirichlet(np.ones(30))
    vectors[7] = weights @ vectors[100:130]

    how = settle(vectors, steps=100)

    assert how[7] == How.INSIDE
    assert outside(how) == set(range(300)) - {7}


def test_an_affine_map_changes_nothing_even_if_it_is_badly_conditioned():
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(80, 3))
    moved = vectors @ np.diag([1e3, 1.0, 1e-3]) @ generator.normal(size=(3, 3)) + 5.0

    assert outside(settle(moved)) == outside(settle(vectors))


def test_vectors_that_differ_in_fewer_dimensions_than_they_have_are_certified_as_well():
    flat = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0]]) @ np.ones((2, 5))

    assert outside(settle(flat)) == {0, 3}  # all lie on one line, with three in its middle


def test_a_winner_by_less_than_rounding_is_never_called_outside():
    middle = np.array([0.0, 1.0 + 1e-15])
    how = settle([[1, 1], [-1, 1], [0, -1], middle])

    assert 3 not in outside(how)


def test_a_strict_maximum_is_one_by_definition():
    vectors = torch.tensor([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-1.0, -1.0]])
    points = Points.of(vectors)
    # directions of the given vectors (m, d), as directions of the whitened ones
    wanted = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]).double()
    directions = wanted @ torch.linalg.pinv(points.back).T

    found = points.are_maxima(torch.tensor([1, 0, 3]), directions)

    assert found.tolist() == [True, False, True]  # the first and the third vector tie


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="expected at least two finite vectors"):
        Points.of(torch.tensor([[1.0], [float("nan")]]))
