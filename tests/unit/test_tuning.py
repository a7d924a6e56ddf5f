"""Tuning: the best point of the grid, and the same number when it is scored alone."""

from dataclasses import replace

import numpy as np
import pytest
from retrieval_artifacts import (
    find_neighbors,
    make_datastore,
    make_index,
    write_inputs,
    write_scored,
)

from knnlm.lm.scoring import load_queries
from knnlm.retrieval.interpolation import mean_distance
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.tuned_points import tuned_points
from knnlm.retrieval.tuning import (
    Point,
    nll_at,
    read_tuned,
    tune,
    tune_interpolation,
)
from knnlm.runtime.artifacts import ArtifactError, identity
from knnlm.runtime.making import Target
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
    few = tune(*scored, grid=GRID | {"k": [1, 4]})
    assert few.distance == tuning.distance  # of all that were stored


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


def test_each_k_has_the_best_temperature_and_lmbda_of_its_own(scored):
    tuning = tune(*scored, grid=GRID)
    places = [(0, 2, 1), (1, 0, 4), (2, 1, 3)]
    nll = np.ones_like(tuning.nll)
    for place in places:
        nll[place] = 0.5 / (1 + place[0])

    assert replace(tuning, nll=nll).best_at_each_k == places
    assert replace(tuning, nll=nll).best == places[2]
    assert tuning.best in tuning.best_at_each_k


def test_only_the_first_k_neighbors_count(scored):
    distances, values, targets, lm_log_probs = scored
    point = Point(k=4, temperature=2.0, lmbda=0.5)

    alone = nll_at(point, distances[:, :4], values[:, :4], targets, lm_log_probs)

    np.testing.assert_array_equal(nll_at(point, *scored), alone)


def test_more_neighbors_than_were_stored_are_an_error(scored):
    with pytest.raises(ValueError, match="at least k = 17 stored neighbors, got 16; raise search"):
        nll_at(Point(k=17, temperature=1.0, lmbda=0.25), *scored)


def test_numbers_of_neighbors_above_the_stored_ones_are_left_out(scored):
    tuning = tune(*scored, grid=GRID | {"k": [4, 16, 17]})

    assert tuning.ks.tolist() == [4, 16]
    assert tuning.nll.shape == (2, 3, 5)
    with pytest.raises(ValueError, match=r"grid\.k to have a number up to 16, .* got \[17, 40\]"):
        tune(*scored, grid=GRID | {"k": [17, 40]})


SITE = "ffn_input_after_layer_norm"
NAMES = {"datastore": "base", "seed": "0", "index": "exact", "corpus": "gazetteer"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return stored_of(tmp_path_factory.mktemp("stored"))


def stored_of(folder, split="validation"):
    """Write queries, and the neighbors of some of them."""
    lm = write_inputs(folder)
    queries = {"tokens": 60, "tokens_per_document": 25, "stride": 4, "seed": 0}
    datastore = {"site": SITE, "stride": 4, "dtype": "float16", "shard_mib": 16}
    write_scored(folder / "queries", queries=queries, split=split, **lm)
    make_datastore(folder / "datastore", **datastore, **lm)
    make_index(folder / "index", datastore=folder / "datastore", index={"engine": "exact"})
    inputs = {role: folder / role for role in ("datastore", "index", "queries")}
    search = {"k": 16, "block_queries": 50, "recall_sample": 5}
    find_neighbors(folder / "neighbors", **inputs, **search, n_queries=20)
    return {role: folder / role for role in ("queries", "neighbors")}


def path_of(folder, names):
    datastore, seed, index, corpus = (names[name] for name in NAMES)
    return folder / "tuned" / datastore / f"seed{seed}" / index / f"{corpus}.json"


def written(folder, stored, **changes):
    path = path_of(folder, NAMES | changes)
    tune_interpolation(Target(path, "f", NAMES | changes), **stored, grid=GRID)
    return path


def test_nothing_is_tuned_on_test(tmp_path):
    stored = stored_of(tmp_path, split="test")

    with pytest.raises(ArtifactError, match=r"of validation to tune on, got .*queries, of test"):
        written(tmp_path, stored)


def test_what_is_read_is_what_was_tuned_to_the_last_bit(stored, tmp_path):
    queries, found = load_queries(stored["queries"]), load_neighbors(stored["neighbors"])
    paired = (queries.targets[found.places], queries.lm_log_probs[found.places])
    tuning = tune(found.distances, found.values, *paired, grid=GRID)

    tuned = read_tuned(written(tmp_path, stored))

    assert tuned.point == tuning.point
    assert tuned.place == tuning.best
    assert tuned.places == tuning.best_at_each_k
    assert tuned.nll == tuning.nll[tuning.best]
    assert tuned.mean_squared_distance == tuning.distance
    assert tuned.temperature_relative == tuning.temperatures[tuning.best[1]]
    axes = {"k": tuning.ks, "temperatures": tuning.temperatures, "lmbdas": tuning.lmbdas}
    assert tuned.grid == {name: axis.tolist() for name, axis in axes.items()}
    assert (tuned.names, tuned.n_queries) == (NAMES, 20)
    assert tuned.made_from["neighbors"] == identity(stored["neighbors"], kind="neighbors")


def test_neighbors_of_other_queries_are_not_tuned_on(stored, tmp_path):
    other = write_inputs(tmp_path)
    queries = {"tokens": 40, "tokens_per_document": 20, "stride": 4, "seed": 1}
    write_scored(tmp_path / "queries", queries=queries, **other)

    with pytest.raises(ArtifactError, match="neighbors was made from another queries"):
        written(tmp_path, stored | {"queries": tmp_path / "queries"})

    assert not list(tmp_path.rglob("*.json.part"))


def test_tuned_points_are_known_by_what_they_say(stored, tmp_path):
    paths = [written(tmp_path, stored, seed=seed, corpus=c) for seed in "01" for c in ("a", "b")]

    points = tuned_points(reversed(paths))

    assert len(points) == 4
    assert points["base", 1, "exact", "a"].names == NAMES | {"seed": "1", "corpus": "a"}
    with pytest.raises(ArtifactError, match=r"point of base/2/exact/a, got base/1/exact/b, base"):
        points["base", 2, "exact", "a"]
    with pytest.raises(ArtifactError, match=r"expected one tuned point of base/0/exact/a, got .*"):
        tuned_points([paths[0], paths[0]])


def test_a_tuned_point_that_is_not_of_its_path_is_named(stored, tmp_path):
    path = written(tmp_path, stored)
    elsewhere = path_of(tmp_path, NAMES | {"index": "ivfpq"})
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(path.read_bytes())
    with pytest.raises(ArtifactError, match=r"ivfpq.* to be of what .* it is of index exact"):
        read_tuned(elsewhere)

    path.write_text(path.read_text()[:50])
    with pytest.raises(ArtifactError, match=r"gazetteer\.json cannot be read as a tuned point"):
        read_tuned(path)
