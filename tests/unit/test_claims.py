"""Verdicts, against regions and intervals worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from knnlm.evidence.claims import (
    COLUMNS,
    ClaimError,
    Evidence,
    evaluate_claims,
    read_claims,
    verdict,
)
from knnlm.evidence.comparison import read_published
from knnlm.evidence.estimates import Estimate
from knnlm.evidence.tables import tidy, write_csv
from knnlm.evidence.verdict import read_verdicts

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "data/published.csv"
CLAIMS = read_claims(sorted((ROOT / "workflow/experiments").glob("*/claims.yaml")))
LM = {"metric": "loss", "method": "lm"}
KNN = {"metric": "loss", "method": "knn"}


def claim(**changes):
    """Return a good block, changed; None takes a key away."""
    good = {"id": "lower", "paper": "chiang2024", "exhibit": "Table 1", "claim": "It is lower."}
    good |= {"file": "losses/claims.yaml"}
    good |= {
        "table": "losses",
        "of": KNN,
        "relation": "below",
        "margin": 0,
        "margin_source": "the claim is a direction",
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def write_claims(folder, **claims):
    """Write a file of claims for each experiment; return their paths in this order."""
    files = []
    for experiment, blocks in claims.items():
        (folder / experiment).mkdir()
        files.append(folder / experiment / "claims.yaml")
        if isinstance(blocks, list):
            blocks = [{key: block[key] for key in block if key != "file"} for block in blocks]
        files[-1].write_text(yaml.safe_dump(blocks))
    return files


def run(**values):
    """Return a run with one table of losses: for each method a list of seeds, or a row's cells."""
    rows = []
    for method, found in values.items():
        cells = [found] if isinstance(found, dict) else [{"value": value} for value in found]
        for seed, row in enumerate(cells):
            names = {"experiment": "e", "model": "base", "metric": "loss", "unit": "nats", "n": 50}
            rows.append(names | {"method": method, "seed": seed} | row)
    experiments = {"losses": "training", "hosted": "hosted_training"}
    return Evidence({"losses": tidy(rows)}, experiments, settings={})


def only(block, held_against):
    verdicts = evaluate_claims([block], held_against)
    assert len(verdicts) == 1
    return verdicts.iloc[0]


def interval(value, low, high):
    return {"value": value, "ci_low": low, "ci_high": high}


@pytest.mark.parametrize(
    ("relation", "margin", "low", "high", "expected"),
    [
        ("below", 1, 0.1, 0.9, "holds"),
        ("below", 1, 1.1, 1.9, "does not hold"),
        ("below", 1, 0.9, 1.1, "undecided"),
        ("above", 1, 1.1, 1.9, "holds"),
        ("above", 1, 0.1, 0.9, "does not hold"),
        ("above", 1, 0.9, 1.1, "undecided"),
        ("within", [-1, 1], -0.9, 0.9, "holds"),
        ("within", [-1, 1], 1.1, 1.2, "does not hold"),
        ("within", [-1, 1], -1.2, -1.1, "does not hold"),
        ("within", [-1, 1], 0.9, 1.1, "undecided"),
        ("within", [-1, 1], -2, 2, "undecided"),
    ],
)
def test_a_claim_holds_or_fails_only_with_its_whole_interval(relation, margin, low, high, expected):
    found = only(
        claim(relation=relation, margin=margin), run(knn=interval((low + high) / 2, low, high))
    )

    assert found["verdict"] == expected
    assert ("covers the border" in found["reason"]) == (expected == "undecided")


finite = st.floats(-1e6, 1e6)


@given(border=finite, below=st.floats(1e-6, 1e6), above=st.floats(1e-6, 1e6))
def test_an_interval_that_covers_the_border_is_undecided(border, below, above):
    found = Estimate(border, border - below, border + above, 3, "nats", "")

    assert verdict(found, (-math.inf, border)) == "undecided"
    assert verdict(found, (border, math.inf)) == "undecided"
    assert verdict(found, (border, border + above / 2)) == "undecided"


@given(ends=st.tuples(finite, finite).map(sorted), edges=st.tuples(finite, finite).map(sorted))
def test_a_claim_that_holds_does_not_fail_on_a_part_of_its_interval(ends, edges):
    (low, high), inside = ends, tuple(edges)
    middle = (low + high) / 2
    decided = verdict(Estimate(middle, low, high, 3, "", ""), inside)

    if decided != "undecided" and low < high:
        assert verdict(Estimate(middle, middle, high, 3, "", ""), inside) == decided


def test_a_number_without_an_interval_is_undecided():
    found = only(claim(), run(knn={"value": -5.0}))

    assert (found["verdict"], found["reason"]) == (
        "undecided",
        "no interval: it rests on one seed, or on too few documents",
    )


@pytest.mark.parametrize(("scale", "said"), [("cpu", True), ("paper", False)])
def test_what_a_small_lm_cannot_decide_is_said_beside_its_verdict(scale, said):
    seeds = replace(run(knn=[-1.0, -1.1, -0.9]), settings={"scale": scale})

    found = only(claim(small_lm="it knows no names"), seeds)

    assert found["verdict"] == "holds"
    assert ("cannot decide it: it knows no names" in found["reason"]) is said


def test_a_counted_number_needs_no_interval():
    found = only(claim(counted=True, margin=4), run(knn={"value": 3.0}))

    assert (found["verdict"], found["ci_low"], found["ci_high"]) == ("holds", 3, 3)
    assert math.isnan(found["p"])


@pytest.mark.parametrize("relation", ["below", "above"])
def test_a_counted_number_on_the_border_is_on_neither_side(relation):
    found = only(claim(counted=True, margin=4, relation=relation), run(knn={"value": 4.0}))

    assert found["verdict"] == "does not hold"


def test_a_difference_is_paired_over_seeds_and_n_counts_them():
    # Student's t with 2 degrees of freedom: 2.0 +- 4.303 * 1 / sqrt(3)
    seeds = run(knn=[3.0, 12.0, 21.0], lm=[2.0, 10.0, 18.0])

    found = only(claim(minus=LM, relation="above", margin=-1), seeds)

    assert (found["ours"], found["n"], found["verdict"]) == (2, 3, "holds")
    assert found["ci_low"] == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert found["relation"] == "difference above -1"
    t = 3 / (1 / 3**0.5)  # of 2 against -1; Student's tail for 2 degrees of freedom by hand
    assert found["p"] == pytest.approx(1 - t / (2 + t**2) ** 0.5)
    # the seeds alone could not tell: their own intervals are 20 wide
    assert only(claim(relation="above", margin=-1), seeds)["verdict"] == "undecided"


def test_a_ratio_is_compared_with_its_margin():
    found = only(claim(over=LM, margin=1), run(knn=[1.0, 2.0, 4.1], lm=[2.0, 4.0, 8.0]))

    assert found["ours"] == pytest.approx((0.5 * 0.5 * 0.5125) ** (1 / 3))
    assert (found["verdict"], found["relation"], found["unit"]) == (
        "holds",
        "ratio below 1",
        "ratio",
    )


def test_each_model_has_a_verdict_of_its_own_and_one_model_needs_no_name():
    table = run(knn=interval(-2.0, -3.0, -1.0))
    row = {"experiment": "e", "model": "big", "metric": "loss", "unit": "nats", "n": 50, "seed": 0}
    both = tidy(
        [*table.tables["losses"].to_dict("records"), row | {"method": "knn"} | interval(2, 1, 3)]
    )
    many = Evidence({"losses": both}, table.experiments, table.settings)

    assert list(evaluate_claims([claim(each="model")], table)["id"]) == ["lower"]
    found = evaluate_claims([claim(each="model")], many)
    assert list(found["id"]) == ["lower/base", "lower/big"]
    assert list(found["verdict"]) == ["holds", "does not hold"]
    assert found["claim"].iloc[1] == "It is lower. (big)"


def test_each_model_is_compared_with_its_own_row():
    row = {"experiment": "e", "metric": "loss", "unit": "nats", "n": 50}
    values = {("small", "lm"): 3.0, ("small", "knn"): 2.0, ("big", "lm"): 1.0, ("big", "knn"): 1.5}
    table = tidy(
        row | {"model": model, "method": method, "seed": seed, "value": value + 0.01 * seed}
        for (model, method), value in values.items()
        for seed in (0, 1)
    )
    held_against = Evidence({"losses": table}, {"losses": "training"}, settings={})

    found = evaluate_claims([claim(each="model", minus=LM)], held_against)

    assert dict(zip(found["id"], found["ours"].round(9), strict=True)) == {
        "lower/small": -1.0,
        "lower/big": 0.5,
    }


def test_a_claim_is_not_run_without_its_table_and_the_reason_names_it():
    found = only(claim(table="hosted"), run(knn=[1.0]))

    assert found["verdict"] == "not run"
    assert found["reason"] == "no table hosted.csv: this run does not include hosted_training"


def test_a_claim_is_not_run_where_the_settings_leave_its_rows_out():
    found = only(claim(of={"metric": "loss", "method": "mlp"}), run(knn=[1.0]))

    assert found["verdict"] == "not run"
    assert found["reason"] == "table losses.csv has no row with metric loss, method mlp"


def test_a_claim_whose_model_only_another_scale_has_is_not_run_and_says_what_it_needs():
    large = claim(of={"metric": "loss", "model": "xl"}, scales=["paper"], needs="GPT-2 XL")

    found = only(large, run(knn=[1.0]))

    assert found["verdict"] == "not run"
    assert found["reason"] == "needs GPT-2 XL, as at scale paper"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"table": "loses"}, "table 'loses'; expected one of losses, hosted"),
        ({"of": {"metric": "los"}}, "metric 'los'; expected one of loss"),
        ({"of": {"metric": "loss", "way": "x"}}, "column way"),
        ({"of": {"metric": "loss"}}, "choose among method: knn, lm"),
        ({"minus": {"metric": "los"}}, "metric 'los'"),
        ({"of": {"metric": "los"}, "scales": ["paper"], "needs": "time"}, "metric 'los'"),
    ],
)
def test_a_block_that_names_what_does_not_exist_is_an_error_that_names_the_claim(changes, named):
    with pytest.raises(ClaimError, match=f"claim lower of losses/claims.yaml: .*{named}"):
        evaluate_claims([claim(**changes)], run(knn=[1.0, 2.0], lm=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"relation": "beneath"}, "'beneath' is not one of"),
        ({"margin_source": None}, "'margin_source' is a required property"),
        ({"margin_source": "by eye"}, "'by eye' does not match"),
        ({"margin": [0, 1]}, "is not of type 'number'"),
        ({"relation": "within"}, "is not of type 'array'"),
        ({"scales": ["cpu"]}, "'needs' is a dependency"),
        ({"minus": LM, "over": LM}, "expected minus or over, got both"),
        ({"colour": "red"}, "colour"),
        ({"each": "seed"}, "'seed' is not one of"),
        ({"stricter_than": "none"}, "stricter_than 'none'; expected the id of a claim above it"),
        ({"id": "first"}, "an id stands for one claim"),
        ({"ours": True, "stricter_than": "first"}, "is ours anyway"),
    ],
)
def test_a_bad_block_is_an_error_that_names_it(tmp_path, changes, named):
    block = claim(**changes)
    files = write_claims(tmp_path, one=[claim(id="first")], other=[block])

    with pytest.raises(ClaimError, match=f"claim {block['id']} of .*other/claims.yaml: .*{named}"):
        read_claims(files)


@pytest.mark.parametrize("content", [{"lower": "below"}, [], None])
def test_a_file_that_is_no_list_is_an_error(tmp_path, content):
    with pytest.raises(ClaimError, match=r"one/claims.yaml to be a list of claims"):
        read_claims(write_claims(tmp_path, one=content))


def test_claims_stand_in_the_order_of_the_files_and_speak_of_the_table_of_their_folder(tmp_path):
    files = write_claims(
        tmp_path,
        second=[claim(id="a", table=None), claim(id="b", table="curves")],
        first=[claim(id="c", table=None)],
    )

    found = read_claims(files)

    assert [(block["id"], block["table"]) for block in found] == [
        ("a", "second"),
        ("b", "curves"),
        ("c", "first"),
    ]


def test_the_table_has_its_columns_and_can_be_read_back(tmp_path):
    verdicts = evaluate_claims(
        [claim(theirs=-1.5), claim(id="never", table="hosted", stricter_than="lower")],
        run(knn=interval(-2.0, -3.0, -1.0)),
    )

    write_csv(tmp_path / "claims.csv", verdicts)
    first, second = read_verdicts(tmp_path / "claims.csv")

    assert tuple(first) == COLUMNS
    assert (first["ours"], first["theirs"], first["n"], first["margin"]) == (
        "-2",
        "-1.5",
        "50",
        "0",
    )
    assert (second["ours"], second["n"], second["stricter_than"]) == ("", "", "lower")


@pytest.mark.parametrize(
    ("changes", "whose"),
    [({}, "papers"), ({"ours": True}, "ours"), ({"stricter_than": "other"}, "ours")],
)
def test_a_claim_is_the_papers_or_a_control_of_ours(changes, whose):
    assert only(claim(**changes), run(knn=[1.0]))["whose"] == whose
    assert only(claim(**changes, table="hosted"), run(knn=[1.0]))["whose"] == whose


def test_a_claim_that_says_it_is_not_in_the_paper_is_ours():
    for block in CLAIMS:
        if "not in the paper" in block["claim"]:
            assert "ours" in block or "stricter_than" in block


def test_our_claims_cover_the_experiments_of_the_core_paper():
    blocks = CLAIMS
    core = [block["table"] for block in blocks if block["paper"] == "chiang2024"]

    assert set(core) >= {
        *("knn_perplexity", "softmax_bottleneck", "overspecification"),
        *("conversational", "mlp_augmentation", "mlp_hurdle"),
    }
    assert len(core) >= 12
    assert sum("stricter_than" in block for block in blocks) >= 6


@pytest.mark.parametrize(
    ("name", "paper", "exhibit", "row", "over"),
    [
        ("knn_below_lm", "chiang2024", "Table 1 (WikiText)", "kNN-LM", "LM"),
        ("mlp_below_lm", "chiang2024", "Table 2", "MLP-LM, WikiText", "LM, WikiText"),
        ("mlp_above_knn", "chiang2024", "Table 2", "MLP-LM, WikiText", "kNN-LM, WikiText"),
        (
            "mlp_lowers_perplexity_on_macondo",
            "chiang2024",
            "Table 2",
            "MLP-LM, Macondo",
            "LM, Macondo",
        ),
        (
            "knn_lowers_perplexity_on_macondo",
            "chiang2024",
            "Table 2",
            "kNN-LM, Macondo",
            "LM, Macondo",
        ),
        ("knn_below_lm_per_word", "khandelwal2020", "Table 1 (WikiText-103)", "+kNN-LM", "Baevski"),
    ],
)
def test_their_change_is_that_of_the_printed_perplexities(name, paper, exhibit, row, over):
    printed = read_published(PUBLISHED)
    printed = printed[(printed["paper"] == paper) & (printed["exhibit"] == exhibit)]
    printed = printed[
        printed["column"].str.contains("perplexity") & ~printed["column"].str.contains("dev")
    ]
    value = printed.loc[printed["row"] == row, "value"].item()
    base = printed.loc[printed["row"].str.startswith(over), "value"].iloc[0]
    theirs = {block["id"]: block.get("theirs") for block in CLAIMS}

    assert theirs[name] == pytest.approx(100 * (value / base - 1), abs=0.01)


@pytest.mark.parametrize(("name", "row"), [("f", "f"), ("f_g", "f and the last MLP")])
def test_their_share_of_the_gap_is_that_of_the_printed_perplexities(name, row):
    printed = read_published(PUBLISHED)
    printed = printed[printed["exhibit"] == "Table 1 (WikiText)"].set_index("row")["value"]
    share = (printed["LM"] - printed[f"projection to {row}"]) / (printed["LM"] - printed["kNN-LM"])
    theirs = {block["id"]: block.get("theirs") for block in CLAIMS}

    assert theirs[f"projection_to_{name}_has_the_perplexity_of_knn"] == pytest.approx(
        share, abs=1e-3
    )


def test_a_direction_has_its_margin_at_no_difference():
    for block in CLAIMS:
        if block["margin_source"].startswith("the claim is a direction"):
            shares = block["of"]["metric"] == "share_of_gap"  # from 0, the LM, to 1, the kNN-LM
            assert block["margin"] == (1 if "over" in block else 0.5 if shares else 0)


def test_only_what_was_never_run_has_a_margin_that_was_committed_before_the_first_run():
    blocks = CLAIMS
    committed = [b for b in blocks if b["margin_source"].startswith("committed before")]

    assert committed
    assert all(block["scales"] == ["paper"] and "needs" in block for block in committed)


@pytest.mark.parametrize(
    ("id_", "row"),
    [
        ("optimum_has_the_perplexity_of_knn", "projection to f"),
        ("projection_to_f_has_the_perplexity_of_knn", "projection to f"),
        ("projection_to_f_g_has_the_perplexity_of_knn", "projection to f and the last MLP"),
    ],
)
def test_similar_means_as_near_as_what_the_paper_calls_similar(id_, row):
    printed = read_published(PUBLISHED)
    printed = printed[printed["exhibit"] == "Table 1 (WikiText)"].set_index("row")["value"]
    missed = abs(printed[row] - printed["kNN-LM"]) / (printed["LM"] - printed["kNN-LM"])
    (block,) = (block for block in CLAIMS if block["id"] == id_)

    assert block["margin"] == pytest.approx(1 - missed, abs=1e-3)


def test_a_projection_that_is_better_than_knn_does_not_fail():
    shares = [block for block in CLAIMS if block["of"]["metric"] == "share_of_gap"]

    assert shares
    assert {block["relation"] for block in shares} == {"above"}
