"""Tests of the samples: entries of a datastore of a share, and evenly spaced queries."""

import itertools

import numpy as np
import pytest

import knnlm.retrieval.sampling
from knnlm.retrieval.sampling import Entries, entries_of, evenly_spaced


def every_position(entries):
    return entries.positions(np.arange(len(entries)))


@pytest.fixture(params=[1 << 20, 64], ids=["one block", "many blocks"])
def block(request, monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.sampling, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
def test_a_smaller_share_is_among_a_larger_one():
    shares = [Entries(1000, share, seed=3) for share in (0.05, 0.1, 0.35, 1.0)]

    held = [every_position(entries) for entries in shares]

    for smaller, larger in itertools.pairwise(held):
        assert np.isin(smaller, larger).all()
        assert len(smaller) < len(larger)
    for entries, positions in zip(shares, held, strict=True):
        assert (np.diff(positions) > 0).all()
        assert abs(len(positions) - entries.share * 1000) <= 8


@pytest.mark.usefixtures("block")
def test_any_ids_find_their_positions():
    entries = Entries(1000, 0.3, seed=0)
    every = every_position(entries)
    ids = np.random.default_rng(0).integers(-1, len(entries), (7, 9))

    found = entries.positions(ids)

    np.testing.assert_array_equal(found, np.where(ids < 0, -1, every[ids]))


def test_another_seed_is_another_subset():
    first, second = (every_position(Entries(1000, 0.1, seed)) for seed in (0, 1))

    assert not np.array_equal(first, second)


def test_each_block_is_drawn_by_itself(monkeypatch):
    monkeypatch.setattr(knnlm.retrieval.sampling, "BLOCK", 64)

    first, second = every_position(Entries(128, 0.5)).reshape(2, 32)

    assert not np.array_equal(first, second - 64)


def test_a_whole_datastore_has_every_position_where_it_is():
    ids = np.array([[0, 5, -1]])

    assert Entries(10).positions(ids) is ids
    assert len(Entries(10)) == 10


def test_a_manifest_says_which_entries_there_are():
    entries = Entries(1000, 0.1, seed=4)

    assert entries_of({"n_entries": 100, "entries": entries.described()}) == entries


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"share of a datastore must be in \(0, 1\], got"):
        Entries(100, share)


def test_a_share_without_an_entry_is_refused():
    with pytest.raises(ValueError, match=r"a share of 0\.001 of 100 positions holds no entry"):
        Entries(100, 0.001)


def test_places_are_spread_over_all():
    np.testing.assert_array_equal(evenly_spaced(10, 4), [0, 2, 5, 7])
    np.testing.assert_array_equal(evenly_spaced(3, 9), [0, 1, 2])
    np.testing.assert_array_equal(evenly_spaced(3, None), [0, 1, 2])
    with pytest.raises(ValueError, match="at least one"):
        evenly_spaced(3, 0)
