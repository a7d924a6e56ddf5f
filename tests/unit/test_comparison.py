"""Published numbers beside ours."""

from pathlib import Path

import pandas as pd
import pytest

from knnlm.evidence.comparison import (
    COLUMNS,
    PUBLISHED,
    PublishedError,
    compare,
    parse_selector,
    read_published,
)
from knnlm.evidence.selection import SelectionError
from knnlm.evidence.tables import tidy, write_csv

DATA = Path(__file__).parents[2] / "data"
SETTINGS = {"scale": "cpu", "corpus": "gazetteer", "index": "exact"}
TABLES = {
    "losses": tidy(
        {"experiment": "e", "corpus": "macondo", "metric": "loss", "unit": "nats", "n": 9}
        | {"method": method, "seed": 0, "value": value, "ci_low": 1, "ci_high": 3}
        for method, value in {"exact": 2.0, "other": 2.5}.items()
    )
}


def published(tmp_path, **changes):
    """Return a file with one published number."""
    row = {"paper": "chiang2024", "exhibit": "Table 1", "row": "LM", "column": "perplexity"}
    row |= {"value": "20.13", "unit": "perplexity", "source": "the paper", "confidence": "high"}
    row |= {"table": "losses", "selector": "metric=loss; method={index}"} | changes
    pd.DataFrame([row]).to_csv(tmp_path / "published.csv", index=False)
    return tmp_path / "published.csv"


def compared(file, tables=TABLES):
    return compare(read_published(file), tables, known=["losses", "hosted"], settings=SETTINGS)


def test_ours_stands_beside_theirs_with_scale_and_corpus(tmp_path):
    found = compared(published(tmp_path)).iloc[0]

    assert (found["theirs"], found["ours"], found["ci_low"], found["ci_high"]) == (20.13, 2, 1, 3)
    assert (found["n"], found["scale"], found["corpus"]) == (9, "cpu", "macondo")


def test_a_number_that_could_not_be_verified_stays_empty_beside_ours(tmp_path):
    write_csv(tmp_path / "out.csv", compared(published(tmp_path, value="")))

    found = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    assert tuple(found.columns) == COLUMNS
    assert (found["theirs"][0], found["ours"][0]) == ("", "2")


@pytest.mark.parametrize("changes", [{"table": "hosted"}, {"selector": "metric=loss; method=mlp"}])
def test_ours_is_empty_where_the_run_has_no_such_number(tmp_path, changes):
    found = compared(published(tmp_path, **changes)).iloc[0]

    assert found["theirs"] == 20.13
    assert pd.isna(found["ours"])


def test_a_number_that_nothing_of_ours_answers_is_not_compared(tmp_path):
    assert compared(published(tmp_path, table="", selector="")).empty


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"value": "about 3"}, "value is no number"),
        ({"selector": ""}, "table and selector belong together"),
        ({"table": "loses"}, "table 'loses'; expected one of"),
        ({"selector": "metric=los"}, "metric 'los'"),
        ({"selector": "metric loss"}, "expected column=value"),
        ({"selector": "metric=loss"}, "choose among method: exact, other"),
    ],
)
def test_a_bad_row_is_an_error_that_names_its_line(tmp_path, changes, named):
    with pytest.raises(PublishedError, match=f"line 2 of .*{named}"):
        compared(published(tmp_path, **changes))


def test_the_same_number_twice_is_an_error(tmp_path):
    file = published(tmp_path)
    file.write_text(file.read_text() + file.read_text().splitlines()[1] + "\n")

    with pytest.raises(PublishedError, match=r"line 3 of .*the same row twice"):
        read_published(file)


def test_other_columns_are_an_error(tmp_path):
    (tmp_path / "published.csv").write_text("paper,value\nchiang2024,1\n")

    with pytest.raises(PublishedError, match="to have the columns paper, exhibit"):
        read_published(tmp_path / "published.csv")


def test_a_selector_is_read_part_by_part():
    assert parse_selector("metric=loss; setting=a/f||p") == {"metric": "loss", "setting": "a/f||p"}
    with pytest.raises(SelectionError):
        parse_selector("")


def test_our_file_has_no_number_of_low_confidence_and_no_repository_log():
    numbers = read_published(DATA / "published.csv")

    assert tuple(pd.read_csv(DATA / "published.csv", nrows=0).columns) == PUBLISHED
    assert set(numbers["confidence"]) == {"high", "medium", "low", "unverified"}
    assert numbers.loc[numbers["confidence"].isin(["low", "unverified"]), "value"].isna().all()
    assert numbers.loc[numbers["confidence"].isin(["high", "medium"]), "value"].notna().all()
    assert not numbers["exhibit"].str.contains("Repo").any()


@pytest.mark.parametrize(
    ("exhibit", "row", "value"),
    [
        ("Table 1 (WikiText)", "LM", 20.13),
        ("Table 1 (WikiText)", "kNN-LM", 16.92),
        ("Table 2", "MLP-LM, Macondo", 10.76),
    ],
)
def test_our_file_has_the_numbers_that_the_margins_are_made_of(exhibit, row, value):
    numbers = read_published(DATA / "published.csv")
    chiang = numbers[numbers["paper"] == "chiang2024"].set_index(["exhibit", "row"])

    assert chiang.loc[(exhibit, row), "value"] == value
