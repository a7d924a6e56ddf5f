"""The report: what it says of a run, and that nothing in it stops it but a broken caption."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from report_run import CLAIM, NOT_RUN, SETTINGS, SVG, Links, page_of, write_run

from knnlm.evidence.recorded import RecordedRun, write_runs
from knnlm.evidence.report.captions import caption_html, first_sentence, inline_svg
from knnlm.evidence.report.checks import check_artifacts
from knnlm.evidence.report.costs import costs_by_experiment, costs_by_rule, disk_by_kind
from knnlm.evidence.report.tables import headline_rows, shown_claims
from knnlm.evidence.tables import tidy, write_table
from knnlm.evidence.verdict import number, with_interval
from knnlm.runtime.artifacts import write_manifest
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.verification import artifacts_in


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two experiments, of which the second was not finished."""
    return write_run(tmp_path)


def test_the_page_says_claim_number_interval_and_verdict(run):
    page = page_of(run)

    assert "kNN-LM is &lt;better&gt; than its LM." in page
    assert '<span class="value">-42.0</span> <span class="interval">[-44.2, -40.0]</span>' in page
    assert "</span> holds</span>" in page
    assert page.index('id="verdict"') < page.index('id="experiments"')


def test_the_page_counts_the_papers_claims_apart_from_ours(run):
    rows = [CLAIM, CLAIM | {"id": "b", "whose": "ours", "verdict": "undecided"}]
    pd.DataFrame(rows).to_csv(run / "tables/claims.csv", index=False)

    page = page_of(run)

    assert page.index("1 claims of the papers:") < page.index("1 stricter controls of ours:")
    assert "control, ours:" in page


def test_the_verdicts_of_recorded_runs_stand_beside_those_of_the_run(run):
    facts = {key: SETTINGS[key] for key in ("scale", "corpus")} | {"name": "elsewhere"}
    rows = [CLAIM, CLAIM | {"id": "changed", "margin": "1"}]
    theirs = [row | {"verdict": "undecided"} for row in (rows[0], rows[1] | {"margin": "2"})]
    pd.DataFrame(rows).to_csv(run / "tables/claims.csv", index=False)
    files = [str(run / f"recorded.{kind}") for kind in ("csv", "json")]
    write_runs(*map(Path, files), [RecordedRun(facts, {row["id"]: row for row in theirs})])

    page = page_of(run, recorded=files)

    assert page.count("recorded, elsewhere: undecided") == 1
    (run / "recorded.csv").write_text("old\n1\n")
    assert "recorded.csv cannot be read" in page_of(run, recorded=files)


def test_every_link_leads_to_a_file_beside_the_page_or_an_id_on_it(run):
    page = Links(page_of(run))

    assert len(page.ids) == len(set(page.ids))
    assert any(link.startswith("tables/") for link in page.links)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (run / "report" / link).is_file()


def test_what_is_missing_or_broken_is_named_and_the_rest_is_shown(run):
    (run / "tables/second.csv").write_text("not,a,tidy,table\n1,2,3,4\n")

    page = page_of(run)

    assert "tables/second.csv cannot be read" in page
    assert "figures/second.svg is missing" in page
    assert "tables/comparison.csv is missing" in page
    assert "24.1" in page


@pytest.mark.parametrize(("documents", "named"), [(29, True), (30, False)])
def test_too_few_documents_for_an_interval_are_named_with_what_to_do(run, documents, named):
    row = {"experiment": "first", "metric": "documents", "value": documents, "n": documents}
    more = row | {"split": "validation", "value": 40}
    write_table(run / "tables/first.csv", tidy([r | {"unit": "count"} for r in (more, row)]))

    page = page_of(run)

    assert ("first.csv rests on 29 documents, so no interval" in page) is named
    assert ("lower queries.tokens_per_document" in page) is named


def test_an_experiment_that_was_switched_off_is_named_with_its_question(run):
    page = page_of(run, not_run={"second": NOT_RUN})

    assert f"<code>second</code> (Does it learn?): {NOT_RUN}.</li>" in page
    assert 'id="second"' not in page


def test_an_experiment_has_its_own_tables_and_none_of_one_whose_name_begins_alike(run):
    for name in ("second_curves", "second_hosted"):
        (run / f"tables/{name}.csv").write_text("a\n1\n")

    article = page_of(run).partition('<article id="second"')[2].partition("</article>")[0]

    assert 'href="tables/second_curves.csv"' in article
    assert "second_hosted" not in article


def test_the_page_needs_no_network(run):
    page = page_of(run)

    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert "@import" not in page
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?!data:)", page)


def test_an_altered_artifact_is_named_and_a_budget_of_nothing_sees_only_sizes(run):
    (run / "models/base/weights.bin").write_bytes(bytes(2047) + b"x")
    artifacts = artifacts_in(run)

    read = check_artifacts(artifacts, budget=1 << 20)
    sized = check_artifacts(artifacts, budget=0)

    assert (read.artifacts, read.by_checksum, read.files, read.bytes) == (1, 1, 1, 2048)
    assert "weights.bin" in read.problems[0]
    assert (sized.by_checksum, sized.problems) == (0, [])
    assert "weights.bin" in page_of(run)


def test_units_in_progress_and_parts_of_an_artifact_are_not_artifacts(run):
    for name in ("partial/models/base/abc", "models/base/shard-00000"):
        (run / name).mkdir(parents=True)
        write_manifest(run / name, kind="model", settings={}, made_from={}, contents={})

    assert artifacts_in(run) == [run / "models/base"]
    assert disk_by_kind(artifacts_in(run)) == [("model", 1, 2048)]


def test_costs_are_summed_over_the_jobs_of_a_rule_and_speed_is_that_of_the_finished_job(run):
    train, quick = costs_by_rule(run / "tables/cost.csv", run / "logs")

    assert (train["rule"], train["jobs"], train["seconds"], train["max_rss_mb"]) == (
        "train",
        2,
        90.5,
        600.0,
    )
    assert train["speeds"] == [("tokens", 1250.0)]
    assert (quick["rule"], quick["speeds"]) == ("quick", [])


def test_a_stricter_claim_points_to_the_first_reading_of_the_weaker_one(run):
    readings = [CLAIM | {"id": f"open/{name}"} for name in ("one", "other")]
    stricter = CLAIM | {"id": "strict", "stricter_than": "open", "whose": "ours"}
    pd.DataFrame([*readings, stricter]).to_csv(run / "tables/claims.csv", index=False)

    page = page_of(run)

    assert page.count('id="claim-open"') == 1
    assert page.index('id="claim-open"') < page.index('id="claim-open/other"')
    assert 'href="#claim-open"' in page


def test_costs_are_shared_out_to_papers_and_their_experiments(run):
    shares = costs_by_experiment(run / "tables/cost.csv")

    assert [tuple(share.values()) for share in shares] == [
        ("chiang2024", "", 2, 90.5, 84.0),
        ("chiang2024", "first", 1, 60.0, 55.0),
        ("chiang2024", "second", 1, 30.5, 29.0),
    ]


def test_ids_of_two_figures_never_clash_and_references_follow_them(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.svg").write_text(SVG)

    one, two = (inline_svg(tmp_path / f"{n}.svg", label='a "label"') for n in ("one", "two"))

    ids = re.findall(r'id="([^"]+)"', one)
    assert ids == ["one-D-41", "one-p1"]
    assert not set(ids) & set(re.findall(r'id="([^"]+)"', two))
    assert 'href="#one-D-41"' in one
    assert "url(#one-p1)" in one
    assert 'aria-label="a &quot;label&quot;"' in one
    assert "metadata" not in one
    assert "<?xml" not in one


def test_a_file_that_is_no_svg_is_an_error_that_names_it(tmp_path):
    (tmp_path / "one.svg").write_text("<html></html>")

    with pytest.raises(ValueError, match=r"one\.svg"):
        inline_svg(tmp_path / "one.svg", label="")


def test_a_caption_shows_the_settings_of_the_run(run):
    shown = caption_html(run.parents[1] / "first/caption.rst", SETTINGS)

    assert "k = 8" in shown
    assert "<em>words</em>" in shown
    assert first_sentence(shown) == "Perplexity for k = 8."


@pytest.mark.parametrize(
    "source",
    ["{{ absent }}", "{{ first.absent }}", "*never closed", "{{ first["],
    ids=["unknown block", "unknown setting", "bad markup", "bad template"],
)
def test_a_broken_caption_stops_the_report_with_its_name(source, tmp_path):
    (tmp_path / "caption.rst").write_text(source)

    with pytest.raises(ValueError, match=r"caption\.rst cannot be rendered"):
        caption_html(tmp_path / "caption.rst", SETTINGS)


def test_every_caption_of_the_project_renders_at_the_settings_of_the_default_scale():
    root = Path(__file__).parents[2]
    config, _ = with_experiments(
        yaml.safe_load((root / "config.yaml").read_text()),
        yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text()),
        read_experiments(root).values(),
    )
    files = sorted((root / "workflow/experiments").glob("*/caption.rst"))

    for path in files:
        assert len(first_sentence(caption_html(path, config))) > 20


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (8000.0, "8,000"),
        (0.0761234, "0.07612"),
        (12345.6, "12,346"),
        (1e-7, "1.00e-07"),
        (float("nan"), ""),
        (None, ""),
        ("", ""),
        ("arXiv", "arXiv"),
    ],
)
def test_a_number_has_four_digits(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    ("numbers", "ours", "interval"),
    [
        ((-42.0213, -44.2, -39.98), "-42.0", "[-44.2, -40.0]"),
        ((0.0317, -0.0204, 0.0911), "0.03", "[-0.02, 0.09]"),
        ((1234.5, 1000.0, 1500.0), "1,234", "[1,000, 1,500]"),
        ((24.0, float("nan"), float("nan")), "24", ""),
        (("24.5", "", ""), "24.5", ""),
        ((0.5, 0.5, 0.5), "0.5", ""),
        ((5.0, -0.3, 11.0), "5", "[0, 11]"),
    ],
)
def test_an_estimate_has_two_digits_of_its_interval(numbers, ours, interval):
    assert with_interval(*numbers) == (ours, interval)


def test_names_are_read_in_words(tmp_path):
    row = {"experiment": "other", "method": "knn_lm", "model": "alma", "unit": "percent", "n": 1}
    row |= {"setting": "ivf_flat/tuned", "split": "test", "metric": "perplexity_change_vs_lm"}
    write_table(tmp_path / "other.csv", tidy([row | {"value": 1, "ci_low": 0, "ci_high": 2}]))

    (shown,) = headline_rows(tmp_path / "other.csv", experiment="other", headlines=None)

    assert shown.what == "alma / kNN-LM / IVF-flat, tuned / test"
    assert shown.metric == "perplexity change against LM"


def test_the_headlines_of_an_experiment_choose_order_and_label_its_rows(tmp_path):
    row = {"experiment": "e", "metric": "loss", "unit": "nats", "n": 1, "value": 1.5}
    table = tidy(row | {"method": method} for method in ("knn_lm", "lm", "other"))
    write_table(tmp_path / "e.csv", table)
    (tmp_path / "headlines.yaml").write_text(
        '- {method: lm, label: "of {method}"}\n- {method: "*_lm", label: "of {method}"}\n'
    )

    shown = headline_rows(tmp_path / "e.csv", experiment="e", headlines=tmp_path / "headlines.yaml")

    assert [line.what for line in shown] == ["of LM", "of kNN-LM"]


def test_headline_rows_are_means_over_seeds_where_there_are_several(tmp_path):
    row = {"experiment": "other", "metric": "loss", "unit": "nats", "n": 1, "model": "a_b"}
    row |= {"ci_low": 0.0, "ci_high": 2.0}
    rows = [row | {"seed": seed, "value": value} for seed, value in ((0, 0.5), (1, 1.5))]
    once = row | {"seed": 0, "value": 0.25, "metric": "of_one_seed"}
    table = tidy([*rows, row | {"seed": "all", "value": 1.0}, once])
    write_table(tmp_path / "other.csv", table)

    shown = headline_rows(tmp_path / "other.csv", experiment="other", headlines=None)

    assert [(line.value, line.metric) for line in shown] == [
        ("1.0", "loss"),
        ("0.2", "of one seed"),
    ]
    assert shown[0].what.startswith("a b")


def test_an_unknown_verdict_is_an_error_that_names_the_claim(tmp_path):
    pd.DataFrame([CLAIM | {"verdict": "maybe"}]).to_csv(tmp_path / "claims.csv", index=False)

    with pytest.raises(ValueError, match="knn_helps"):
        shown_claims(tmp_path / "claims.csv")
