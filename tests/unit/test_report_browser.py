"""The report and the explorer in a real browser, Debian's Chromium, without a network."""

import pandas as pd
import pytest
from browser import CHROMIUM, open_page
from report_run import CLAIM, page_of, write_run
from test_explorer import entry, write

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
CLAIMS = [
    CLAIM,
    CLAIM
    | {"id": "second", "claim": "A longer training helps more.", "ours": "-3.5"}
    | {"ci_low": "-8", "ci_high": "1", "verdict": "undecided", "paper": "xu2023", "whose": "ours"},
    CLAIM
    | {"id": "third", "claim": "Mistral is no exception.", "ours": "", "n": ""}
    | {"ci_low": "", "ci_high": "", "verdict": "not run", "reason": "needs Mistral"},
]


@pytest.fixture
def report(tmp_path):
    run = write_run(tmp_path)
    pd.DataFrame(CLAIMS).to_csv(run / "tables/claims.csv", index=False)
    page_of(run)
    return run / "report/index.html"


@pytest.fixture
def explorer(tmp_path):
    write(tmp_path, [entry(), entry(text=" one"), entry(text=" two")])
    return tmp_path / "explorer.html"


def shown_claims(page):
    rows = page.locator("#verdict-table tbody tr:visible")
    return [row.get_attribute("id").removeprefix("claim-") for row in rows.all()]


def test_the_verdict_table_sorts_both_ways_and_says_so(report):
    with open_page(report) as page:
        head = page.get_by_role("columnheader", name="Ours")

        head.get_by_role("button").click()
        assert shown_claims(page) == ["knn_helps", "second", "third"]  # no number comes last
        assert head.get_attribute("aria-sort") == "ascending"

        head.get_by_role("button").press("Enter")
        assert shown_claims(page) == ["third", "second", "knn_helps"]
        assert head.get_attribute("aria-sort") == "descending"


def test_the_verdict_table_filters_by_verdict_paper_and_words(report):
    with open_page(report) as page:
        page.get_by_role("combobox", name="Verdict").select_option("undecided")
        assert shown_claims(page) == ["second"]
        assert page.locator("#verdict-count").inner_text() == "1 of 3 claims"

        page.get_by_role("combobox", name="Verdict").select_option("")
        page.get_by_role("combobox", name="Paper").select_option("Xu 2023")
        assert shown_claims(page) == ["second"]

        page.get_by_role("combobox", name="Paper").select_option("")
        page.get_by_role("combobox", name="Whose").select_option("claims of the papers")
        assert shown_claims(page) == ["knn_helps", "third"]

        page.get_by_role("combobox", name="Whose").select_option("")
        page.get_by_label("Search").fill("MISTRAL")
        assert shown_claims(page) == ["third"]


def test_without_a_script_everything_is_read_and_no_dead_control_is_seen(report, explorer):
    with open_page(report, java_script_enabled=False) as page:
        assert shown_claims(page) == ["knn_helps", "second", "third"]
        assert not page.locator("#verdict-controls").is_visible()
        assert page.locator("thead button").count() == 0
    with open_page(explorer, java_script_enabled=False) as page:
        page.locator("a.tok", has_text="one").click()
        assert page.locator("#p0-t1").is_visible()
        assert page.locator(".detail:visible").count() == 1


def test_a_click_on_a_token_shows_its_distributions_and_neighbors(explorer):
    with open_page(explorer) as page:
        assert page.locator(".detail:visible").count() == 0

        page.locator("a.tok", has_text="two").click()

        shown = page.locator(".detail:visible")
        assert shown.get_attribute("id") == "p0-t2"
        assert shown.locator(".distribution").count() == 3
        assert "said & done" in shown.inner_text()
        assert "60 %" in shown.inner_text()


def test_the_explorer_is_used_by_keys_alone(explorer):
    with open_page(explorer) as page:
        token = page.locator("a.tok", has_text="one")
        token.focus()
        token.press("Enter")
        assert page.locator(".detail:visible").get_attribute("id") == "p0-t1"

        page.keyboard.press("ArrowRight")
        assert page.locator(".detail:visible").get_attribute("id") == "p0-t2"
        assert page.evaluate("document.activeElement.hash") == "#p0-t2"

        page.keyboard.press("ArrowRight")  # there is no token after the last
        assert page.locator(".detail:visible").get_attribute("id") == "p0-t2"


def test_the_first_tab_leads_to_the_content_and_every_focus_is_seen(report):
    with open_page(report) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0

        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_no_page_is_wider_than_its_window(report, explorer, width, scheme):
    for path in (report, explorer):
        with open_page(path, width=width, color_scheme=scheme) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_request_or_an_error_on_a_page_is_seen_by_these_tests(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="https://example.org/x.png"><script>throw Error("x")</script>')

    with pytest.raises(AssertionError, match=r"example\.org"), open_page(page):
        pass
