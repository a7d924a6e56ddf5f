"""docs/exhibits.md: every table and figure of the papers, and where this workflow has it.

    PYTHONPATH=scripts python -m knnlm.evidence.exhibits

writes the page from data/exhibits.csv, which lists what the papers show, the docstrings of the
experiments' target rules, their claims, and the published numbers that a run is compared with.
`make exhibits` does it. What no experiment has stands there with the reason.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knnlm.evidence.comparison import parse_selector
from knnlm.runtime.artifacts import atomic_path
from knnlm.runtime.experiments import Experiment, read_experiments, read_yaml

LIST, PAGE, PUBLISHED = "data/exhibits.csv", "docs/exhibits.md", "data/published.csv"
COLUMNS = ("paper", "exhibit", "shows", "coming", "missing")
TITLES = {
    "chiang2024": "Chiang et al. 2024, *On Retrieval Augmentation and the Limitations of Language Model Training* ([arXiv 2311.09615](https://arxiv.org/abs/2311.09615))",  # noqa: E501
    "khandelwal2020": "Khandelwal et al. 2020, *Generalization through Memorization* ([arXiv 1911.00172](https://arxiv.org/abs/1911.00172))",
    "xu2023": "Xu et al. 2023, *Why do Nearest Neighbor Language Models Work?* ([arXiv 2301.02828](https://arxiv.org/abs/2301.02828))",
    "geng2024": "Geng et al. 2024, *Great Memory, Shallow Reasoning* ([arXiv 2408.11815](https://arxiv.org/abs/2408.11815))",
}
INTRODUCTION = """\
# Exhibits

Every table and figure of the papers: the experiment that has it, the rows of its table that a claim or a published number is held against, and its figure. An exhibit that no experiment has, or that one has in part, says what is missing. Tables and figures are in `results/{run}/`, the verdicts on the claims in [verdict.md](verdict.md).

`make exhibits` writes this page from [data/exhibits.csv](../data/exhibits.csv), the docstrings of the experiments' rules, their claims and [data/published.csv](../data/published.csv).
"""  # noqa: E501
NUMBERED = re.compile(
    r"\b(Table|Figure|Section|Appendix)(?:s|es|ices)? "
    r"((?:[A-Z]\.)?\d[\d.]*[a-z]?(?:(?:-|, (?:and )?| and )\d[\d.]*[a-z]?\b)*)"
)
BY = re.compile(r"([A-Z]\w+) et al\. \((\d{4})\)")


class ExhibitError(ValueError):
    """An exhibit that no paper of the list has, or one that nothing has and nothing explains."""


@dataclass
class Exhibit:
    """An exhibit of a paper, and what this workflow has of it.

    `coming` is the name of an experiment that is to have it, and `missing` what no experiment
    has. `rows` are the table's methods and metrics by experiment, and `claims` their ids.
    """

    paper: str
    exhibit: str
    shows: str
    coming: str
    missing: str
    rows: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)


def read_exhibits(path: Path) -> list[Exhibit]:
    """Return the exhibits of the papers in the order of the list.

    Raises:
        ExhibitError: for other columns, an unknown paper, or the same exhibit twice.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file)
        if tuple(lines.fieldnames or ()) != COLUMNS:
            raise ExhibitError(
                f"expected {path} to have the columns {', '.join(COLUMNS)}, got "
                f"{', '.join(lines.fieldnames or ()) or 'none'}"
            )
        found = [Exhibit(**line) for line in lines]
    names = [(one.paper, one.exhibit) for one in found]
    for number, name in enumerate(names, start=2):
        if name[0] not in TITLES or names.count(name) > 1:
            raise ExhibitError(
                f"line {number} of {path}: expected each exhibit once, of one of "
                f"{', '.join(TITLES)}, got {' '.join(name)}"
            )
    return found


def exhibits_in(text: str) -> list[str]:
    """Return the exhibits that a text names, one by one: "Figures 1 and 3b" has two.

    Parts of a figure count as the figure, and a range as all that lie in it.
    """
    found = []
    for kind, listed in NUMBERED.findall(text):
        for part in re.split(r", (?:and )?| and ", listed):
            first, _, last = (re.sub(r"[a-z]$", "", end) for end in part.partition("-"))
            ends = range(int(first), int(last) + 1) if last else [first.rstrip(".")]
            found += [f"{kind} {number}" for number in ends]
    return list(dict.fromkeys(found))


def named_by(text: str, exhibits: Sequence[Exhibit], *, paper: str, where: str) -> list[Exhibit]:
    """Return which exhibits of a paper a text names, by number or, where it has none, by name.

    Sections and appendices that the list does not have are only where something stands.

    Raises:
        ExhibitError: for a table or figure that the list does not have.
    """
    known = {one.exhibit: one for one in exhibits if one.paper == paper}
    numbers = exhibits_in(text)
    for name in numbers:
        if name.startswith(("Table", "Figure")) and name not in known:
            raise ExhibitError(
                f"{where}: {paper} has no {name} in {LIST}; correct it, or add the exhibit"
            )
    return [one for name, one in known.items() if name in numbers or _named(name, text)]


def _named(name: str, text: str) -> bool:
    return not exhibits_in(name) and name.lower() in " ".join(text.lower().split())


def told_by_rule(one: Experiment) -> Iterator[tuple[str, str]]:
    """Yield each paper, and what of it the docstring of an experiment's target rule names.

    Raises:
        ExhibitError: for a paper that is none of those of the list.
    """
    rules = (one.folder / "rules.smk").read_text(encoding="utf-8")
    docstring = re.search(rf'rule {one.name}:\n    """(.+?)"""', rules, re.DOTALL)
    _, _, told = (docstring[1] if docstring else "").partition("Exhibits:")
    parts = BY.split(told)
    for author, year, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        paper = f"{author.lower()}{year}"
        if paper not in TITLES:
            raise ExhibitError(f"rule {one.name}: {paper} is none of {', '.join(TITLES)}")
        yield paper, text


def collect(root: Path) -> list[Exhibit]:
    """Return all exhibits with the experiments, rows and claims that they have in a checkout.

    Raises:
        ExhibitError: as `read_exhibits` and `named_by`; or if an exhibit has no experiment and no
            reason, or the one that was to have it is there and does not name it.
    """
    exhibits, experiments = read_exhibits(root / LIST), read_experiments(root)
    for name, one in experiments.items():
        for paper, text in told_by_rule(one):
            for exhibit in named_by(text, exhibits, paper=paper, where=f"rule {name}"):
                exhibit.rows.setdefault(name, [])
        _add_claims(one, exhibits)
    _add_published(root, exhibits)
    for one in exhibits:
        if one.coming in experiments and one.coming not in one.rows:
            raise ExhibitError(
                f"{LIST}: {one.paper}, {one.exhibit} was to come with {one.coming}, which is there "
                "and does not name it; name it in the docstring of its rule, or here another"
            )
        if not (one.rows or one.coming or one.missing):
            raise ExhibitError(
                f"{LIST}: no experiment has {one.exhibit} of {one.paper}; say in `missing` why, or "
                "in `coming` which one will"
            )
    return exhibits


def _add_claims(one: Experiment, exhibits: Sequence[Exhibit]) -> None:
    path = one.folder / "claims.yaml"
    for claim in read_yaml(path) if path.is_file() else []:
        where = f"claim {claim['id']}"
        named = named_by(claim["exhibit"], exhibits, paper=claim["paper"], where=where)
        selectors = [claim[key] for key in ("of", "minus", "over") if key in claim]
        for exhibit in named:
            exhibit.claims.append(claim["id"])
            exhibit.rows.setdefault(one.name, []).extend(selectors)


def _add_published(root: Path, exhibits: Sequence[Exhibit]) -> None:
    with (root / PUBLISHED).open(encoding="utf-8", newline="") as file:
        for number in csv.DictReader(file):
            where = f"{PUBLISHED}, {number['row']}"
            named = named_by(number["exhibit"], exhibits, paper=number["paper"], where=where)
            for exhibit in named if number["table"] else []:
                # curves stand in a second table, which is named after the experiment too
                for name in (name for name in exhibit.rows if number["table"].startswith(name)):
                    exhibit.rows[name].append(parse_selector(number["selector"]))


def page(exhibits: Sequence[Exhibit], experiments: Sequence[str]) -> str:
    """Return the page as Markdown, a table for each paper.

    Args:
        exhibits: from `collect`.
        experiments: names of all that there are.
    """
    lines = [INTRODUCTION]
    for paper, title in TITLES.items():
        lines += [f"## {title}", ""]
        lines += ["| exhibit | shows | experiment and rows | figure | claims | not here |"]
        lines += ["|---|---|---|---|---|---|"]
        for one in (one for one in exhibits if one.paper == paper):
            cells = (one.exhibit, one.shows, _where(one), _figures(one), _claims(one))
            cells = (*cells, _missing(one, experiments))
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def _where(one: Exhibit) -> str:
    """Return the experiments of an exhibit, each with the methods and metrics of its rows."""
    parts = []
    for name, rows in one.rows.items():
        told = [f"[{name}](../workflow/experiments/{name})"]
        for column in ("method", "metric"):
            values = dict.fromkeys(str(row[column]) for row in rows if row.get(column, "*") != "*")
            if values:
                told.append(f"{column} {', '.join(f'`{value}`' for value in values)}")
        parts.append(": ".join([told[0], "; ".join(told[1:])]) if told[1:] else told[0])
    return "<br>".join(parts)


def _figures(one: Exhibit) -> str:
    return "<br>".join(f"`figures/{name}.svg`" for name in one.rows)


def _claims(one: Exhibit) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(one.claims))


def _missing(one: Exhibit, experiments: Sequence[str]) -> str:
    coming = f"coming: `{one.coming}`" if one.coming and one.coming not in experiments else ""
    return "; ".join(reason for reason in (coming, one.missing) if reason)


def written(root: Path) -> str:
    """Return the page of a checkout.

    Raises:
        ExhibitError: as `collect`.
    """
    return page(collect(root), list(read_experiments(root)))


if __name__ == "__main__":
    text = written(Path.cwd())
    with atomic_path(Path(PAGE)) as temporary:
        temporary.write_text(text, encoding="utf-8")
