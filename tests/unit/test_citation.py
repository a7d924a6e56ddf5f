"""CITATION.cff names what a user of the tables owes credit to, in the form of CFF 1.2.0."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PAPERS = {"2311.09615", "1911.00172", "2301.02828", "2408.11815"}
TYPES = {"conference-paper", "article", "data", "software"}  # of those that CFF 1.2.0 knows


def test_the_file_has_what_the_format_requires():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(CITATION)
    assert CITATION["license"] == "MIT"
    assert "MIT" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("reference", CITATION["references"], ids=lambda r: r["title"])
def test_a_reference_is_whole(reference):
    assert reference["type"] in TYPES
    assert reference["title"]
    for author in reference["authors"]:
        assert set(author) in ({"family-names", "given-names"}, {"name"})


def test_the_papers_and_the_sources_of_text_and_names_are_cited():
    references = CITATION["references"]

    cited = {i["value"] for r in references for i in r.get("identifiers", [])}
    assert {f"arXiv:{paper}" for paper in PAPERS} <= cited
    titles = {reference["title"] for reference in references}
    assert {"Names Corpus", "Most common names in America", "Faker", "WikiText"} <= titles
