"""Intervals of what is measured in a town: children of one villager are no independent examples."""

import numpy as np
import pandas as pd
import pytest

from knnlm.experiments.shared.town_tables import ratio_with_interval, villager_bootstrap

EXAMPLES = pd.DataFrame({"villager_id": np.repeat(np.arange(40), 2)})


def test_a_villager_is_drawn_with_all_children():
    one_up_one_down = np.tile([1.0, -1.0], 40)

    low, high = villager_bootstrap(EXAMPLES, "an experiment").ratio(one_up_one_down)

    assert (low, high) == pytest.approx((0, 0))


def test_the_interval_of_a_ratio_is_that_of_its_own_denominators():
    weights = np.arange(1.0, 81.0)

    found = ratio_with_interval(villager_bootstrap(EXAMPLES, "an experiment"), 2 * weights, weights)

    assert found == pytest.approx({"value": 2, "ci_low": 2, "ci_high": 2})
