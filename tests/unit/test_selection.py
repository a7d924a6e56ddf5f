"""Rows chosen by selectors."""

import pytest

from knnlm.evidence.selection import (
    NothingSelected,
    SelectionError,
    apart,
    chosen_rows,
    filled,
    read_tables,
)
from knnlm.evidence.tables import tidy, write_table

SETTINGS = {"knn": {"index": "exact"}, "compare": ["base", "other"], "k": 8}


@pytest.fixture
def table():
    row = {"experiment": "e", "metric": "hits", "n": 1, "unit": "share", "method": "knn_lm"}
    return tidy(
        [
            row | {"setting": "exact/tuned", "seed": 0, "value": 1.0, "k": 1},
            row | {"setting": "exact/tuned", "seed": 1, "value": 2.0, "k": 1},
            row | {"setting": "exact/tuned", "seed": 0, "value": 3.0, "k": 8},
            row | {"metric": "bytes", "value": 4.0, "k": None},
        ],
        coordinates=("k",),
    )


def test_a_selector_chooses_the_rows_of_all_seeds(table):
    chosen = chosen_rows(
        table, {"metric": "hits", "setting": "{knn.index}/tuned", "k": 1}, SETTINGS
    )

    assert list(chosen["value"]) == [1, 2]


def test_a_coordinate_is_compared_as_a_number_and_may_be_a_setting(table):
    chosen = chosen_rows(table, {"metric": "hits", "k": "{k}"}, SETTINGS)

    assert list(chosen["value"]) == [3]


@pytest.mark.parametrize(
    ("setting", "values"), [("*/tuned", [1, 2, 3]), ("exact/*", [1, 2, 3]), ("*", [1, 2, 3])]
)
def test_a_star_stands_for_any_text(table, setting, values):
    chosen = chosen_rows(table, {"metric": "hits", "setting": setting}, SETTINGS)

    assert list(chosen["value"]) == values


def test_a_star_that_fits_no_row_selects_nothing(table):
    with pytest.raises(NothingSelected, match=r"setting tuned/\*"):
        chosen_rows(table, {"metric": "hits", "setting": "tuned/*"}, SETTINGS)


def test_a_setting_in_braces_may_be_an_entry_of_a_list():
    assert filled("{compare.1}/end", SETTINGS) == "other/end"


@pytest.mark.parametrize(
    ("selector", "named"),
    [
        ({"metric": "perplexity"}, "metric 'perplexity'; expected one of hits, bytes"),
        ({"metric": "hits", "methods": "lm"}, "column methods"),
        ({"metric": "hits", "seed": "0"}, "column seed"),
        ({"method": "knn_lm"}, "without a metric"),
        ({"metric": "hits", "setting": "{knn.indx}"}, "no setting 'knn.indx'"),
        ({"metric": "hits", "setting": "{compare.2}"}, "no setting 'compare.2'"),
    ],
)
def test_what_does_not_exist_is_an_error_that_names_it(table, selector, named):
    with pytest.raises(SelectionError, match=named):
        chosen_rows(table, selector, SETTINGS)


def test_a_value_that_no_row_has_selects_nothing(table):
    with pytest.raises(NothingSelected, match="metric hits, method mlp"):
        chosen_rows(table, {"metric": "hits", "method": "mlp"}, SETTINGS)


def test_only_tidy_tables_are_read(table, tmp_path):
    write_table(tmp_path / "curves.csv", table)
    (tmp_path / "examples.csv").write_text("split,sentence\ntrain,a\n")

    found = read_tables(sorted(tmp_path.glob("*.csv")))

    assert list(found) == ["curves"]
    assert list(found["curves"]["value"]) == [1, 2, 3, 4]


def test_coordinates_may_differ_between_seeds_and_not_within_one():
    row = {"experiment": "e", "metric": "perplexity", "unit": "perplexity", "n": 9, "value": 1.0}
    curve = [row | {"seed": seed, "k": 1, "lmbda": lmbda} for seed, lmbda in ((0, 0.1), (1, 0.2))]
    other = row | {"seed": 1, "k": 2, "lmbda": 0.2}

    assert apart(tidy(curve, coordinates=("k", "lmbda"))) == {}
    assert set(apart(tidy([*curve, other], coordinates=("k", "lmbda")))) == {"k"}
