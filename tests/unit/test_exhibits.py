"""Every table and figure of the papers has a row, and a place in the workflow or a reason."""

import shutil
from pathlib import Path

import pytest

from knnlm.evidence.exhibits import (
    COLUMNS,
    LIST,
    PAGE,
    PUBLISHED,
    ExhibitError,
    collect,
    exhibits_in,
    page,
    written,
)

ROOT = Path(__file__).parents[2]
RULES = "workflow/experiments/key_function/rules.smk"
CLAIMS = "workflow/experiments/key_function/claims.yaml"
# tables and figures of the papers whose numbers of exhibits are known
COUNTS = {"chiang2024": (7, 5), "khandelwal2020": (9, 8), "xu2023": (3, 4)}


def test_the_page_is_what_the_list_rules_and_claims_give():
    assert (ROOT / PAGE).read_text(encoding="utf-8") == written(ROOT), "make exhibits writes it"


@pytest.mark.parametrize("paper", COUNTS)
def test_no_table_and_no_figure_of_a_paper_is_left_out(paper):
    names = {one.exhibit for one in collect(ROOT) if one.paper == paper}
    expected = {
        f"{kind} {number}"
        for kind, count in zip(("Table", "Figure"), COUNTS[paper], strict=True)
        for number in range(1, count + 1)
    }

    assert expected == {name for name in names if name.startswith(("Table", "Figure"))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Table 1", ["Table 1"]),
        ("Figures 1 and 3, Tables 5 and 6.", ["Table 5", "Table 6", "Figure 1", "Figure 3"]),
        ("Figure 6 and Tables 6-9.", ["Figure 6", *(f"Table {n}" for n in (6, 7, 8, 9))]),
        ("Figures 2a, 2b and 3b", ["Figure 2", "Figure 3"]),
        ("Table 1, rows 3 and 5.", ["Table 1"]),
        ("Table 1 (projections), Tables 3 and 4", ["Table 1", "Table 3", "Table 4"]),
        ("Section 6, Figure 8; Appendix E.6.1.", ["Section 6", "Figure 8", "Appendix E.6.1"]),
        ("Table 2, Limitations", ["Table 2"]),
        ("the overfitted LM", []),
    ],
)
def test_exhibits_are_read_from_a_text_one_by_one(text, expected):
    assert sorted(exhibits_in(text)) == sorted(expected)


@pytest.fixture
def project(tmp_path):
    """Return a folder with one experiment, key_function, its paper's list and no numbers."""
    for place in ("workflow/experiments", "scripts/knnlm/experiments"):
        shutil.copytree(ROOT / place / "key_function", tmp_path / place / "key_function")
    (tmp_path / "data").mkdir()
    (tmp_path / PUBLISHED).write_text(
        "paper,exhibit,row,table,selector\n"
        'khandelwal2020,"Table 5 (key function)",output,key_function,method=knn_lm; metric=mine\n'
    )
    listed(
        tmp_path, "khandelwal2020,Table 5,keys,,", "khandelwal2020,Figure 1,a drawing,,no result"
    )
    return tmp_path


def listed(project, *lines):
    (project / LIST).write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")


def edited(project, file, old, new):
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))


def test_an_exhibit_has_its_experiments_rows_and_claims(project):
    table, drawing = collect(project)

    (rows,) = table.rows.values()
    assert [row["metric"] for row in rows] == [
        "nats_per_token_vs_ffn_input_after_layer_norm",
        "mine",
    ]
    assert table.claims == ["key_is_ffn_input_after_layer_norm"]
    assert not drawing.rows
    assert "| `figures/key_function.svg` |" in written(project)


def test_an_experiment_that_is_to_come_is_named_until_it_is_there(project):
    listed(project, "khandelwal2020,Table 5,keys,key_function,", "khandelwal2020,Figure 1,x,other,")
    exhibits = collect(project)

    text = page(exhibits, ["key_function"])

    assert "coming: `other`" in text
    assert "coming: `key_function`" not in text


def test_an_experiment_that_has_come_must_name_its_exhibit(project):
    listed(project, "khandelwal2020,Table 5,keys,,", "khandelwal2020,Figure 1,x,key_function,")

    with pytest.raises(
        ExhibitError, match="Figure 1 was to come with key_function, which is there"
    ):
        collect(project)


def test_an_exhibit_without_an_experiment_needs_a_reason(project):
    listed(project, "khandelwal2020,Table 5,keys,,", "khandelwal2020,Figure 1,a drawing,,")

    with pytest.raises(ExhibitError, match="no experiment has Figure 1 of khandelwal2020; say"):
        collect(project)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (RULES, "Table 5", "Table 15", "rule key_function: khandelwal2020 has no Table 15"),
        (CLAIMS, "Table 5", "Figure 9", "claim key_is_ffn_.*: khandelwal2020 has no Figure 9"),
        (PUBLISHED, "Table 5", "Table 6", "published.csv, output: khandelwal2020 has no Table 6"),
        (RULES, "Khandelwal", "Khandelval", "rule key_function: khandelval2020 is none of"),
        (LIST, "Figure 1,", "Table 5,", "line 2 of .*: expected each exhibit once"),
        (LIST, "khandelwal2020,F", "khandelwal2021,F", "line 3 of .* got khandelwal2021 Figure 1"),
        (LIST, "shows", "says", "to have the columns paper, exhibit, shows"),
    ],
)
def test_a_slip_is_named_with_its_place(project, file, old, new, message):
    edited(project, file, old, new)

    with pytest.raises(ExhibitError, match=message):
        collect(project)
