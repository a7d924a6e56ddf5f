"""Recorded runs: a group of columns each, replaced by name, and never beside another claim."""

import pytest

from knnlm.evidence.recorded import (
    DESCRIBED,
    MEASURED,
    RecordedRun,
    comparable_runs,
    read_runs,
    with_run,
    write_runs,
)
from knnlm.evidence.verdict import read_verdicts

FACTS = {"scale": "cpu", "corpus": "gazetteer"}


def run(name, **verdicts):
    """Return a run with a verdict for each claim."""
    cells = dict.fromkeys((*DESCRIBED, *MEASURED), "x")
    rows = {id_: cells | {"id": id_, "verdict": verdict} for id_, verdict in verdicts.items()}
    return RecordedRun(FACTS | {"name": name}, rows)


def verdicts(runs):
    return {one.name: {name: row["verdict"] for name, row in one.verdicts.items()} for one in runs}


def test_what_is_written_is_read_back_with_a_group_of_columns_a_run(tmp_path):
    runs = [run("one", a="holds", b="undecided"), run("two, three", a="does not hold")]
    files = (tmp_path / "claims.csv", tmp_path / "claims.json")

    write_runs(*files, runs)

    assert read_runs(*files) == runs
    columns = list(read_verdicts(files[0])[0])
    assert columns == [
        *DESCRIBED,
        *(f"one: {key}" for key in MEASURED),
        *(f"two, three: {key}" for key in MEASURED),
    ]


def test_a_run_takes_the_place_of_the_one_of_its_name_or_the_last():
    runs = with_run([], run("one", a="holds"))
    runs = with_run(runs, run("two", a="undecided"))
    runs = with_run(runs, run("one", a="does not hold"))

    assert verdicts(runs) == {"one": {"a": "does not hold"}, "two": {"a": "undecided"}}


def test_the_first_run_says_which_claims_there_are():
    runs = [run("one", a="holds"), run("two", a="holds")]

    runs = with_run(runs, run("one", b="holds"))
    assert verdicts(runs) == {"one": {"b": "holds"}, "two": {}}
    runs = with_run(runs, run("two", a="holds", b="undecided"))
    assert verdicts(runs)["two"] == {"b": "undecided"}


@pytest.mark.parametrize("key", ["claim", "relation", "margin"])
def test_a_verdict_on_a_claim_that_was_changed_stands_beside_none(key):
    changed = run("one", a="holds", b="holds")
    changed.verdicts["a"][key] = "other"

    runs = with_run([run("one", a="holds", b="holds"), run("two", a="holds", b="holds")], changed)

    assert verdicts(runs)["two"] == {"b": "holds"}


def test_only_runs_of_the_same_scale_and_corpus_are_compared(tmp_path):
    files = (tmp_path / "claims.csv", tmp_path / "claims.json")
    other = RecordedRun(FACTS | {"name": "large", "scale": "gpu"}, run("", a="holds").verdicts)
    write_runs(*files, [run("one", a="holds"), other])

    found = comparable_runs(files[0], record=files[1], settings=FACTS | {"threads": {}})

    assert [one.name for one in found] == ["one"]
