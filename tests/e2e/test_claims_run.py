"""Claims on a finished tiny run: what the verdicts say, and what a changed claim reruns."""

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from workflow_project import ROOT, TINY

from knnlm.evidence.claims import COLUMNS, read_claims
from knnlm.evidence.comparison import COLUMNS as COMPARED
from knnlm.runtime.experiments import read_experiments

TABLES = "results/tiny/tables"
FILES = [one.folder / "claims.yaml" for one in read_experiments(ROOT).values()]
CLAIMS = read_claims(file for file in FILES if file.is_file())
EDITED = "workflow/experiments/knn_perplexity/claims.yaml"


@pytest.fixture
def verdicts(finished):
    return pd.read_csv(finished.folder / TABLES / "claims.csv").set_index("id")


@pytest.fixture
def edited(copied):
    """A copy of the finished project, with a copy of the claims that a test may edit."""
    (copied.folder / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", copied.folder / "workflow")
    return copied


def edit(project, **keys):
    """Change the first claim of knn_perplexity."""
    file = project.folder / EDITED
    first, *others = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump([first | keys, *others], sort_keys=False))


def test_every_claim_has_a_verdict_and_says_why(finished, verdicts):
    assert list(verdicts.reset_index().columns) == list(COLUMNS)
    ids = verdicts.index.str.partition("/").get_level_values(0)  # behind it the reading or model
    assert list(dict.fromkeys(ids)) == [claim["id"] for claim in CLAIMS]
    assert set(verdicts["verdict"]) <= {"holds", "does not hold", "undecided", "not run"}
    assert verdicts["reason"].notna().all()


def test_nothing_is_not_run_but_what_needs_another_scale_or_a_service(verdicts):
    elsewhere = {c["id"] for c in CLAIMS if "scales" in c or c["table"] == "conversational_hosted"}
    of_two_lms = {"lm_ensemble_above_knn"}  # the tiny run has one LM seed

    assert set(verdicts.index[verdicts["verdict"] == "not run"]) == elsewhere | of_two_lms


def test_a_verdict_rests_on_the_row_of_the_table(finished, verdicts):
    table = pd.read_csv(finished.folder / TABLES / "knn_perplexity.csv")
    rows = table[(table.method == "knn_lm") & (table.setting == "exact/tuned")]
    rows = rows[rows.metric == "perplexity_per_token_change_vs_lm"]

    assert len(rows) == 1
    for ours, theirs in {"ours": "value", "ci_low": "ci_low", "ci_high": "ci_high"}.items():
        assert verdicts.loc["knn_below_lm", ours] == rows[theirs].iloc[0]


def test_a_difference_is_that_of_the_seeds(finished, verdicts):
    table = pd.read_csv(finished.folder / TABLES / "overspecification.csv", dtype={"seed": str})
    rows = table[(table.method == "lm") & (table.setting == "end/all")]
    rows = rows[(rows.metric == "child_log_likelihood") & (rows.seed != "all")]
    by_seed = rows.pivot(index="seed", columns="split", values="value")
    pairs = (by_seed["train"] - by_seed["test"]).to_numpy()
    half = stats.t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))

    found = verdicts.loc["lm_learned_what_it_cannot_generalize"]

    assert found["n"] == len(pairs) == 2
    assert found["ours"] == pytest.approx(pairs.mean())
    assert found["ci_high"] - found["ours"] == pytest.approx(half)


def test_published_numbers_stand_beside_ours(finished):
    found = pd.read_csv(finished.folder / TABLES / "comparison.csv")
    chiang = found[(found.paper == "chiang2024") & (found.exhibit == "Table 1 (WikiText)")]

    assert tuple(found.columns) == COMPARED
    assert list(chiang["theirs"]) == [20.13, 16.92, 16.76, 16.78]
    assert chiang["ours"].notna().all()
    assert (chiang["ci_low"] < chiang["ours"]).all()


def test_a_changed_claim_reruns_the_claims_and_the_report(edited):
    edit(edited, margin=-1)

    assert edited.jobs(*TINY, "all") == {"claims", "report", "checksums", "all"}


def test_a_bad_claim_stops_the_run_with_its_name(edited):
    edit(edited, of={"metric": "perplexity_per_tokens"})

    output = edited.snakemake(*TINY, "claims", check=False)

    assert output.returncode != 0
    assert f"claim knn_below_lm of {EDITED}: metric 'perplexity_per_tokens'" in output.stdout


def test_claims_of_an_experiment_that_is_switched_off_are_not_run(edited):
    (edited.folder / "off.yaml").write_text("experiments: [knn_perplexity, mlp_hurdle]")

    command = ["claims", "--configfile", TINY[0].split("=")[1], "off.yaml"]
    jobs = edited.jobs(*command)
    edited.snakemake(*command)

    assert jobs == {"settings", "claims"}
    found = pd.read_csv(edited.folder / TABLES / "claims.csv").set_index("id")
    assert found.loc["knn_below_lm", "verdict"] == "holds"
    assert found.loc["mlp_below_lm", "verdict"] == "not run"
    assert found.loc["mlp_below_lm", "reason"] == (
        "no table mlp_augmentation.csv: this run does not include mlp_augmentation"
    )


def test_a_run_with_claims_ends_with_their_verdicts_and_another_without(edited):
    (edited.folder / TABLES / "claims.csv").unlink()
    (edited.folder / TABLES / "settings.json").unlink()

    without = edited.snakemake(*TINY, "settings").stdout
    printed = edited.snakemake(*TINY, "claims").stdout

    ours = sum("ours" in claim or "stricter_than" in claim for claim in CLAIMS)
    counted = [
        f"{len(CLAIMS) - ours} claims of the papers: ",
        f"{ours} stricter controls of ours: ",
    ]
    assert not any(count in without for count in counted)
    assert all(count in printed for count in counted)
    assert "[chiang2024, Table 2]" in printed
    assert "Report: results/tiny/report/index.html" in printed
