"""Every mask and score has a curve over the same temperatures; the best is chosen elsewhere."""

import numpy as np
import pytest
from scored_run_artifacts import SETTINGS, write_masks, write_run
from test_settings import settings_of

from knnlm.evidence.tables import select
from knnlm.experiments.temperature.figure import draw
from knnlm.experiments.temperature.table import evaluate
from knnlm.runtime.settings import SettingsError

SEARCHED = 200
MODES = ("approximate_approximate", "approximate_real", "real_real")
GRID = {"low": 0.05, "high": 2.0, "count": 5}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    inputs = write_run(root, seeds=(0,), models=["base"], datastores=["base"])
    inputs["masks"] = [write_masks(root, inputs, ["0.1"], searched=SEARCHED)]
    stores = {"base": {"model": "base", "corpus": "made-up", "queries": None}}
    own = {
        "lm_seeds": [0],
        "datastores": stores,
        "approximate_search": {"exact": "exact", "index": "ivfpq", "queries": SEARCHED},
        "temperature": {"shares": [0.1], "temperatures": GRID},
    }
    return evaluate(inputs, SETTINGS | own)


def test_all_masks_and_scores_of_a_share_have_the_same_temperatures(tables):
    grid = tables["grid"]
    expected = np.geomspace(0.05, 2.0, 5)

    for share in ("0.1", "1.0"):
        units = set()
        for mode in MODES:
            curve = select(grid, setting=f"{share}/{mode}")
            np.testing.assert_allclose(curve["temperature"], expected)
            at_1 = select(grid, setting=f"{share}/{mode}/temperature 1")
            units.add(round(1 / at_1["temperature"].item(), 9))
        assert len(units) == 1, "temperature 1 is the same for all"


def test_the_best_point_is_one_of_the_curve_or_temperature_1(tables):
    grid = tables["grid"]

    for share in ("0.1", "1.0"):
        for mode in MODES:
            best = select(grid, setting=f"{share}/{mode}/best")["value"].item()
            curve = grid[grid["setting"].isin([f"{share}/{mode}", f"{share}/{mode}/temperature 1"])]
            assert (curve["value"] == best).any()
            row = select(tables["table"], setting=f"{share}/{mode}", metric="perplexity_per_token")
            assert row["value"].item() == best


def test_what_helps_a_share_more_is_the_difference_of_two_gains(tables):
    table = tables["table"]

    def gain(share, mode):
        metric = "nats_per_token_vs_real_real"
        return select(table, setting=f"{share}/{mode}", metric=metric)["value"].item()

    for mode in MODES[:2]:
        expected = gain("0.1", mode) - gain("1.0", mode)
        row = select(table, setting=f"0.1 minus 1.0/{mode}")
        assert row["value"].item() == pytest.approx(expected)
        assert row["ci_low"].item() < expected < row["ci_high"].item()
    codes, masked = (gain("0.1", mode) for mode in MODES[:2])
    row = select(table, setting="0.1/by mask minus by score")
    assert row["value"].item() == pytest.approx(masked - (codes - masked))


def test_the_figure_has_a_panel_for_each_share(tables):
    panels = draw(tables).axes

    assert [axes.get_title("left") for axes in panels] == [
        "10% of the datastore",
        "100% of the datastore",
    ]


def test_a_share_in_which_nothing_is_searched_is_refused():
    with pytest.raises(SettingsError, match=r"temperature\.shares: .* \[0\.05, .* got 0\.07"):
        settings_of(temperature={"shares": [0.07]})
