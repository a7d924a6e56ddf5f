"""Verdicts as the terminal and the README show them."""

import json
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest

from knnlm.evidence import readme
from knnlm.evidence.recorded import RecordedRun
from knnlm.evidence.verdict import (
    correction,
    holm,
    lines,
    number,
    ours,
    print_verdicts,
    read_verdicts,
    summary,
)

ROOT = Path(__file__).parents[2]
ROW = {"id": "lower", "paper": "chiang2024", "exhibit": "Table 1", "claim": "KL[f || p] is lower."}
ROW |= {"relation": "below 0", "margin": "0", "margin_source": "the claim is a direction", "n": "9"}
ROW |= {"theirs": "-15.95", "ours": "-2.0126", "ci_low": "-3.1", "ci_high": "-1.05"}
ROW |= {"unit": "percent", "verdict": "holds", "reason": "bootstrap"}
ROW |= {"p": "0.0002", "whose": "papers", "stricter_than": ""}
MISSING = ROW | {
    "id": "missing",
    "ours": "",
    "ci_low": "",
    "ci_high": "",
    "verdict": "not run",
    "p": "",
    "reason": "no table",
}
FACTS = {
    "name": "first",
    "date": "2026-11-27",
    "scale": "cpu",
    "corpus": "gazetteer",
    "lm_seeds": [0],
}
FACTS |= {"experiment_seeds": [0, 1, 2], "git": {"commit": "0123456789", "dirty": False}}
FACTS |= {"processor": "a processor"}


def recorded(*rows, **facts):
    return RecordedRun(FACTS | facts, {row["id"]: row for row in rows})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "claims.csv"
    quoted = [",".join(f'"{cell}"' for cell in row.values()) for row in (ROW, MISSING)]
    path.write_text("\n".join([",".join(ROW), *quoted]) + "\n")
    return path


def test_a_number_is_shown_with_two_digits_of_its_interval():
    assert ours(ROW) == "-2.0 [-3.1, -1.1] %"
    assert ours(ROW | {"unit": "nats", "ci_low": "-2.02", "ci_high": "-2.01"}) == (
        "-2.013 [-2.020, -2.010] nats"
    )
    assert ours(ROW | {"ci_low": "-2.0126", "ci_high": "-2.0126"}) == "-2.013 %"
    assert ours(ROW | {"ci_low": "", "ci_high": ""}) == "-2.013 %"
    assert ours(MISSING) == ""
    assert number("") == ""


def test_the_summary_counts_every_verdict():
    verdicts = ("holds", "holds", "undecided", "does not hold")
    rows = [ROW | {"id": f"one_{i}", "verdict": v} for i, v in enumerate(verdicts)]
    rows += [ROW | {"id": f"each/{v}", "verdict": v} for v in ("holds", "does not hold")]
    rows += [ROW | {"id": f"none/{i}", "verdict": "not run"} for i in range(2)]
    verdicts = ("does not hold", "not run")
    rows += [
        ROW | {"id": f"own_{i}", "verdict": v, "whose": "ours"} for i, v in enumerate(verdicts)
    ]

    assert summary(rows) == [
        "6 claims of the papers: 2 hold, 1 do not hold, 1 are undecided, "
        "1 differ by reading or model, 1 were not run",
        "2 stricter controls of ours: 0 hold, 1 do not hold, 0 are undecided, "
        "0 differ by reading or model, 1 were not run",
    ]


@pytest.mark.parametrize(
    ("p_values", "stays"),
    [
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),  # Holm's table for 4 tests
        ([0.04, 0.01], [True, True]),  # 0.01 against 0.025, then 0.04 against 0.05
        ([0.04, 0.03], [False, False]),  # Bonferroni's first step fails
        ([0.05], [True]),
        ([], []),
    ],
)
def test_holm_stops_at_the_first_p_that_is_too_large(p_values, stays):
    assert holm(p_values) == stays


def test_the_correction_counts_what_has_an_interval_and_what_stays_decided():
    rows = [ROW | {"p": p, "verdict": v} for p, v in (("0.001", "holds"), ("0.03", "holds"))]
    rows += [ROW | {"p": "0.2", "verdict": "undecided"}, ROW | {"p": ""}, MISSING]

    text = correction(rows)

    # 0.05 * 3 and 1 - 0.95^3; 0.001 < 0.05 / 3, but 0.03 > 0.05 / 2
    assert "0.2 verdicts would be decided by chance" in text
    assert "a probability of 14 %" in text
    assert "1 of the 2 decided ones stay decided: 1 hold, 0 do not hold." in text
    assert correction([MISSING]) == ""


def test_a_log_gets_one_plain_line_a_claim(file, capsys):
    print_verdicts(file)

    printed = capsys.readouterr().out.splitlines()
    assert (
        printed[0]
        == "holds          -2.0 [-3.1, -1.1] %  KL[f || p] is lower. [chiang2024, Table 1]"
    )
    assert printed[2:] == summary([ROW, MISSING])
    assert all(line.isascii() for line in printed)


def test_a_terminal_gets_a_table_with_the_reason_where_there_is_no_number(
    file, capsys, monkeypatch
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")

    print_verdicts(file)

    printed = capsys.readouterr().out
    assert "KL[f || p] is lower." in printed
    assert "no table" in printed
    assert "-15.95" in printed


def test_a_claim_of_ours_is_marked():
    stricter = ROW | {"whose": "ours", "stricter_than": "other"}

    assert "stricter: KL" in lines([stricter])[0]
    assert "control: KL" in lines([ROW | {"whose": "ours"}])[0]


def test_the_block_says_of_which_run_it_is_and_escapes_bars():
    text = readme.block([recorded(ROW, MISSING)])

    assert correction([ROW]) in text

    assert "2026-11-27" in text
    assert "a processor" in text
    assert "commit 0123456" in text
    assert "with changes" not in text
    assert "## Chiang 2024" in text
    shown = "| Table 1 | below 0 | -15.95 | -2.0 [-3.1, -1.1] % | holds |"
    assert f"| KL[f \\|\\| p] is lower. {shown}" in text
    assert "Not run: KL[f || p] is lower (Table 1)." in text


def test_a_run_with_uncommitted_changes_is_marked():
    changed = recorded(ROW, git={"commit": "0123456789", "dirty": True})

    assert "commit 0123456, with changes" in readme.block([changed])


def test_another_run_has_a_column_of_its_own_and_its_differing_verdicts_are_counted():
    second = recorded(ROW | {"verdict": "undecided"}, name="elsewhere", processor="another")

    text = readme.block([recorded(ROW, ROW | {"id": "alone"}), second])

    assert "| verdict | elsewhere |" in text
    assert "| holds | undecided |" in text
    assert "| holds |  |" in text
    assert "Beside it `elsewhere`" in text
    assert "another; 1 of 1 verdicts differ." in text


def test_a_block_replaces_what_stood_between_the_markers():
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"

    assert readme.with_block(text, "new\n", name=readme.PAGE) == text.replace("old", "new")


@pytest.mark.parametrize("text", ["", readme.BEGIN, readme.END + readme.BEGIN])
def test_a_page_without_markers_is_an_error(text):
    with pytest.raises(ValueError, match=r"expected docs/verdict\.md to have"):
        readme.with_block(text, "new\n", name=readme.PAGE)


def test_the_counts_are_told_by_paper_and_apart_for_our_controls():
    xu = {"paper": "xu2023", "verdict": "does not hold"}
    rows = [ROW, ROW | xu | {"id": "theirs"}, ROW | xu | {"id": "ours", "whose": "ours"}]

    text = readme.counted(recorded(*rows))

    assert "| Chiang 2024 | 1 | 1 | 0 | 0 | 0 | 0 |" in text
    assert "| Xu 2023 | 1 | 0 | 1 | 0 | 0 | 0 |" in text
    assert "| our controls, Xu 2023 | 1 | 0 | 1 | 0 | 0 | 0 |" in text


def test_recording_a_run_keeps_its_verdicts_and_renders_them(tmp_path, file):
    tables = tmp_path / "run/tables"
    tables.mkdir(parents=True)
    shutil.move(file, tables / "claims.csv")
    (tables / "settings.json").write_text(json.dumps(FACTS | {"threads": {}}))
    environment = {"git": FACTS["git"], "cpu": {"name": "a processor", "cores": 2}}
    (tables / "environment.json").write_text(json.dumps(environment))
    (tmp_path / "docs/measurements").mkdir(parents=True)
    for page in (readme.README, readme.PAGE):
        (tmp_path / page).write_text(f"# R\n{readme.BEGIN}\n{readme.END}\n")
    first, second = (recorded(ROW, MISSING, name=name) for name in ("first", "second"))

    for name, runs in {"first": [first], "second": [first, second]}.items():
        readme.record(tmp_path / "run", tmp_path, name=name, day=date(2026, 11, 27))

        assert readme.block(runs) in (tmp_path / readme.PAGE).read_text()
        assert readme.counted(runs[0]) in (tmp_path / readme.README).read_text()
        facts = json.loads((tmp_path / readme.RECORD).read_text())["runs"]
        assert facts == [run.facts for run in runs]


def test_readme_and_page_say_what_the_recorded_runs_say():
    for name, inside in readme.recorded_blocks(ROOT).items():
        text = (ROOT / name).read_text()

        assert text == readme.with_block(text, inside, name=name)
    assert len(read_verdicts(ROOT / readme.CLAIMS)) >= 12


def test_make_records_a_run_by_the_name_that_it_is_given():
    printed = [
        subprocess.run(
            ["make", "--dry-run", "readme", *given], cwd=ROOT, capture_output=True, text=True
        ).stdout
        for given in ((), ("RUN=results/x", "NAME=a second processor"))
    ]

    assert "knnlm.evidence.readme results/cpu-gazetteer" in printed[0]
    assert 'knnlm.evidence.readme results/x "a second processor"' in printed[1]
