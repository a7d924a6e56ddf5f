"""The report of a finished run: whole, true to the tables, mailed as it is, and cheap to change."""

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, open_page
from workflow_project import ROOT, TINY

from knnlm.runtime.experiments import read_experiments

RUN = "results/tiny"
REPORT = f"{RUN}/report/index.html"
EXPERIMENTS = [
    name for name, one in read_experiments(ROOT).items() if not one.costs_money
]  # one that costs money is not run
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs apt-get install chromium")


class Page(HTMLParser):
    """The ids of a page, where its links lead, and the verdicts of its claims."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.verdicts = [], [], {}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        if "data-verdict" in found:
            self.verdicts[found["id"].removeprefix("claim-")] = found["data-verdict"]


@pytest.fixture
def report(finished):
    return finished.folder / REPORT


def test_the_page_has_every_claim_with_the_verdict_of_the_table(finished, report):
    claims = pd.read_csv(finished.folder / RUN / "tables/claims.csv")

    assert Page(report).verdicts == dict(zip(claims["id"], claims["verdict"], strict=True))


def test_every_experiment_has_a_figure_numbers_and_its_tables_and_nothing_is_missing(report):
    text, page = report.read_text(), Page(report)

    for name in EXPERIMENTS:
        article = text[text.index(f'<article id="{name}"') :].partition("</article>")[0]
        assert "<svg" in article
        assert "<tbody>" in article
        assert f"tables/{name}.csv" in article
        assert 'class="problems"' not in article
    assert {"claims.csv", "cost.csv"} <= {link.removeprefix("tables/") for link in page.links}
    assert "All are as they were written." in text


def test_the_folder_of_the_report_can_be_mailed_as_it_is(report, tmp_path):
    mailed = tmp_path / "mailed"
    shutil.copytree(report.parent, mailed)

    for path in mailed.glob("*.html"):
        page = Page(path)
        assert len(page.ids) == len(set(page.ids))
        for link in page.links:
            file, _, place = link.partition("#")
            assert not file or (mailed / file).is_file(), link
            assert not place or place in page.ids, link
        assert path.stat().st_size < 5 << 20


def test_the_tables_of_the_report_are_those_of_the_run(finished, report):
    copies = sorted((report.parent / "tables").glob("[a-z]*"))  # not what Snakemake puts there

    assert {"knn_perplexity.csv", "settings.json"} <= {path.name for path in copies}
    for copy in copies:
        assert copy.read_bytes() == (finished.folder / RUN / "tables" / copy.name).read_bytes()


def test_the_explorer_says_what_the_stored_log_probabilities_and_neighbors_say(finished):
    run = finished.folder / RUN
    found = json.loads((run / "explorer/passages.json").read_text())
    queries = run / "queries/base/seed0/gazetteer/test"
    documents, stored = (np.load(queries / f"{n}.npy") for n in ("documents", "lm_log_probs"))
    blocks = [
        np.load(path)
        for path in sorted((run / "neighbors/base/seed0/exact/gazetteer/test").glob("b*"))
    ]
    distances = np.concatenate([block["distances"] for block in blocks]).astype(np.float64)

    assert len(found["passages"]) == 4
    for passage in found["passages"]:
        lm = np.array([token["target"]["lm"] for token in passage["tokens"]])
        own = np.flatnonzero(documents == passage["document"])
        starts = [
            start
            for start in own
            if np.allclose(np.exp(stored[start : start + len(lm)]), lm, rtol=1e-3)
        ]
        assert len(starts) == 1
        for token, row in zip(
            passage["tokens"], distances[starts[0] :, : found["k"]], strict=False
        ):
            p = token["target"]
            mixed = (1 - found["lmbda"]) * p["lm"] + found["lmbda"] * p["knn"]
            assert p["mixture"] == pytest.approx(mixed, rel=2e-3)
            weights = np.exp(-row / found["temperature"])
            expected = (weights / weights.sum())[: len(token["neighbors"])]
            shown = [neighbor["weight"] for neighbor in token["neighbors"]]
            np.testing.assert_allclose(shown, expected, rtol=1e-3, atol=1e-9)


def test_the_explorer_is_the_same_to_the_byte_when_it_is_made_again(copied):
    passages = copied.folder / RUN / "explorer/passages.json"
    before = passages.read_bytes()
    passages.unlink()

    copied.snakemake(*TINY, f"{RUN}/explorer/passages.json")

    assert passages.read_bytes() == before


@pytest.mark.parametrize(
    ("edited", "jobs"),
    [
        ("workflow/experiments/mlp_hurdle/caption.rst", {"report"}),
        ("workflow/experiments/mlp_hurdle/headlines.yaml", {"report"}),
        ("workflow/experiments/mlp_hurdle/claims.yaml", {"claims", "report"}),
    ],
)
def test_a_changed_claim_or_caption_reruns_only_the_report(copied, edited, jobs):
    part = edited.split("/")[0]
    (copied.folder / part).unlink()
    shutil.copytree(ROOT / part, copied.folder / part)
    path = copied.folder / edited
    path.write_text(path.read_text() + "\n# edited\n")

    # the terminal's table and the checksums of all that was made follow whatever has changed
    assert copied.jobs(*TINY, "all") - {"all", "verdict", "checksums"} == jobs


def test_an_experiment_that_is_switched_off_is_named_and_the_report_is_made(copied):
    left = [name for name in EXPERIMENTS if name != "mlp_hurdle"]
    for path in (copied.folder / RUN).glob("[ft]*/mlp_hurdle*.*"):  # figures and tables
        path.unlink()

    copied.snakemake("--config", f"experiments={json.dumps(left)}", *TINY, "--", REPORT)

    text = (copied.folder / REPORT).read_text()
    assert "<code>mlp_hurdle</code>" in text
    assert "the settings of this run leave it out" in text
    assert '<article id="mlp_hurdle"' not in text


@needs_chromium
@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("page", ["index.html", "explorer.html"])
def test_the_real_pages_ask_for_nothing_fail_in_nothing_and_fit(report, page, width):
    with open_page(report.parent / page, width=width) as opened:
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        for figure in opened.locator(".plot svg").all():
            box = figure.bounding_box()
            assert box["width"] > 300
            assert box["height"] > 100


@needs_chromium
def test_a_token_of_the_real_explorer_shows_what_stands_behind_it(report):
    with open_page(report.parent / "explorer.html") as page:
        page.locator("a.tok").nth(7).click()

        shown = page.locator(".detail:visible")
        assert shown.count() == 1
        assert shown.locator(".distribution").count() == 3
        assert shown.locator("tbody tr").count() == 8
