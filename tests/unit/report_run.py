"""A small run with everything that a report is made from, and the links of a page."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from knnlm.evidence.report.page import Shown, write_report
from knnlm.evidence.tables import tidy, write_table
from knnlm.runtime.artifacts import write_manifest

SETTINGS = {
    "run": "trial",
    "scale": "cpu",
    "corpus": "gazetteer",
    "lm_seeds": [0],
    "experiment_seeds": [0, 1],
    "threads": {"train": 1},
    "first": {"k": 8},
    "second": {},
}
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "packages": {"numpy": "2.4.6", "torch": None},
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "cpu": {"name": "a processor", "cores": 2},
    "gpus": [],
    "config_sha256": "f" * 64,
}
CLAIM = {
    "id": "knn_helps",
    "paper": "Chiang 2024",
    "exhibit": "Table 1",
    "claim": "kNN-LM is <better> than its LM.",
    "relation": "knn_lm below lm",
    "theirs": "-7.5",
    "ours": "-42.0213",
    "ci_low": "-44.2",
    "ci_high": "-39.98",
    "n": "51",
    "unit": "%",
    "margin": "0",
    "margin_source": "the paper",
    "verdict": "holds",
    "p": "0.001",
    "reason": "",
    "whose": "papers",
    "stricter_than": "",
}
SVG = (
    '<?xml version="1.0"?>\n<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="504pt" '
    'height="187.2pt" viewBox="0 0 504 187.2" xmlns="http://www.w3.org/2000/svg">'
    "<metadata>made by</metadata>"
    '<defs><path id="D-41"/><clipPath id="p1"/></defs>'
    '<g clip-path="url(#p1)"><use xlink:href="#D-41"/></g></svg>'
)
QUESTIONS = {
    "first": "Does it help?\n\n    Exhibits: Chiang et al. (2024), Table 1.\n    ",
    "second": "Does it learn?\n\n    Exhibits: Chiang et al. (2024), Figures 1 and 2.\n    ",
}
CAPTIONS = {
    "first": "Perplexity for k = {{ first.k }}. More in *words*.",
    "second": "A curve. No more.",
}
NOT_RUN = "the settings of this run leave it out"


def write_run(folder: Path) -> Path:
    """Write a run of two experiments, of which the second was not finished; return its folder."""
    for name, caption in CAPTIONS.items():
        (folder / name).mkdir()
        (folder / name / "caption.rst").write_text(caption)
    run = folder / "results" / "trial"
    for name in ("tables", "figures", "logs/train"):
        (run / name).mkdir(parents=True)
    row = {"experiment": "first", "corpus": "gazetteer", "method": "lm", "split": "test"}
    row |= {"metric": "perplexity_per_token", "unit": "perplexity", "n": 9}
    write_table(
        run / "tables/first.csv",
        tidy([{**row, "value": 24.137, "ci_low": 22.27, "ci_high": 26.23}]),
    )
    (run / "figures/first.svg").write_text(SVG)
    pd.DataFrame([CLAIM]).to_csv(run / "tables/claims.csv", index=False)
    (run / "tables/cost.csv").write_text(
        "paper,experiment,rule,wildcards,seconds,max_rss_mb,cpu_seconds\n"
        "chiang2024,first,train,a,60.00,512.00,55.00\n"
        "chiang2024,second,train,b,30.50,600.00,29.00\n,,quick,,0.30,,\n"
    )
    (run / "logs/train/a.log").write_text(
        "12:00:00 training: 50 of 100 tokens (50 %), 9 tokens/s, 00:00:05 left\n"
        "12:00:05 training: 100 of 100 tokens (100 %), 1,250 tokens/s, 00:00:00 left\n"
    )
    (run / "tables/settings.json").write_text(json.dumps(SETTINGS))
    (run / "tables/environment.json").write_text(json.dumps(ENVIRONMENT))
    artifact = run / "models/base"
    artifact.mkdir(parents=True)
    (artifact / "weights.bin").write_bytes(bytes(2048))
    write_manifest(artifact, kind="model", settings={}, made_from={}, contents={})
    return run


def page_of(run: Path, **changed) -> str:
    """Write the report of a run and return its text."""
    experiments = {
        "questions": QUESTIONS,
        "not_run": {},
        "tables": {"first": "first", "second": "second", "second_curves": "second"},
        "captions": {name: run.parents[1] / name / "caption.rst" for name in CAPTIONS},
        "headlines": {},
    }
    write_report(
        output=run / "report/index.html",
        run=run,
        shown=Shown(**experiments | changed),
        checksum_gib=1.0,
    )
    return (run / "report/index.html").read_text()


class Links(HTMLParser):
    """The ids of a page and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
