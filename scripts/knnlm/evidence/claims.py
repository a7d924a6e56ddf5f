"""What the papers claim against what a run shows: holds, does not hold, undecided, not run.

A claim says in which region a number lies: below or above a margin, or within two (a claim of
similarity). It holds only if the whole interval lies inside, and does not hold only if all of it
lies outside; that no difference was found is not that there is none. The claims.yaml of an
experiment has one block for each claim; data/README.md says how to write one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import yaml

from knnlm.evidence.estimates import Estimate, difference, ratio, sample
from knnlm.evidence.selection import NothingSelected, SelectionError, chosen_rows
from knnlm.evidence.significance import p_value
from knnlm.evidence.verdict import FAILS, HOLDS, NOT_RUN, OURS, PAPERS, UNDECIDED

COLUMNS = (
    *("id", "paper", "exhibit", "claim", "relation", "theirs", "ours", "ci_low", "ci_high"),
    *("n", "unit", "margin", "margin_source", "verdict", "p", "reason", "whose", "stricter_than"),
)
SMALL = "cpu"  # the scale whose LM some claims are beyond
SCHEMA = Path(__file__).with_name("claims_schema.yaml")

Block = dict[str, Any]


class ClaimError(ValueError):
    """A block of the claims that cannot be right; the message begins with its id."""


@dataclass(frozen=True)
class Evidence:
    """What claims are held against.

    Attributes:
        tables: tidy tables, by name.
        experiments: what makes each table that there can be, by name of the table.
        settings: the merged config.
    """

    tables: Mapping[str, pd.DataFrame]
    experiments: Mapping[str, str]
    settings: Mapping[str, Any]


def read_claims(paths: Iterable[Path]) -> list[Block]:
    """Return the blocks of files of claims, each checked by itself and against those before it.

    A block that names no table speaks of the one that has the name of the file's folder: the
    experiment's own.

    Raises:
        ClaimError: naming the claim and its file, what was expected and what was given.
    """
    validator = jsonschema.Draft202012Validator(yaml.safe_load(SCHEMA.read_text(encoding="utf-8")))
    claims: list[Block] = []
    for path in paths:
        blocks = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(blocks, list) or not blocks:
            raise ClaimError(f"expected {path} to be a list of claims")
        for place, block in enumerate(blocks, start=1):
            wrong = next(_faults(block, validator, [claim["id"] for claim in claims]), None)
            if wrong is not None:
                named = isinstance(block, dict) and block.get("id")
                raise ClaimError(f"claim {named or f'number {place}'} of {path}: {wrong}")
            claims.append({"table": path.parent.name, "file": str(path)} | block)
    return claims


def _faults(
    block: Any, validator: jsonschema.Draft202012Validator, above: list[str]
) -> Iterator[str]:
    """Yield what is wrong with a block, by itself and against the ids above it."""
    for error in validator.iter_errors(block):
        where = ".".join(map(str, error.absolute_path))
        yield f"{where}: {error.message}" if where else error.message
    if "ours" in block and "stricter_than" in block:
        yield "a claim that is stricter than another is ours anyway; leave out ours"
    if "minus" in block and "over" in block:
        yield "expected minus or over, got both"
    if block["id"] in above:
        yield "an id stands for one claim, this one has two"
    stricter_than = block.get("stricter_than")
    if stricter_than is not None and stricter_than not in above:
        known = ", ".join(above) or "none"
        yield f"stricter_than {stricter_than!r}; expected the id of a claim above it: {known}"


def evaluate_claims(blocks: list[Block], evidence: Evidence) -> pd.DataFrame:
    """Return the table of verdicts, with the columns `COLUMNS`, one row a claim.

    A claim with `each` has one row for each value of that column, such as each model.

    Raises:
        ClaimError: for a block that names a table, column, metric or setting that does not exist,
            or rows of more than one number.
    """
    rows = []
    for block in blocks:
        try:
            rows += _verdicts(block, evidence)
        except ValueError as error:
            raise ClaimError(f"claim {block['id']} of {block['file']}: {error}") from error
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n": "Int64"})


def region(block: Block) -> tuple[float, float]:
    """Return the open region in which the number lies if the claim is true."""
    margin = block["margin"]
    ends = {"below": (-np.inf, margin), "above": (margin, np.inf)}
    return ends[block["relation"]] if block["relation"] in ends else (margin[0], margin[1])


def verdict(estimate: Estimate, inside: tuple[float, float]) -> str:
    """Return whether a number lies in an open region, as far as its interval can tell."""
    low, high = inside
    if low < estimate.low and estimate.high < high:
        return HOLDS
    if estimate.high <= low or estimate.low >= high:
        return FAILS
    return UNDECIDED


def _verdicts(block: Block, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Yield the row of a claim, or one for each value of its column `each`."""
    name = block["table"]
    if name not in evidence.experiments:
        raise SelectionError(f"table {name!r}; expected one of {', '.join(evidence.experiments)}")
    if name not in evidence.tables:
        reason = f"no table {name}.csv: this run does not include {evidence.experiments[name]}"
        yield _row(block, NOT_RUN, reason)
        return
    column = block.get("each")
    try:
        rows = chosen_rows(evidence.tables[name], block["of"], evidence.settings)
        for value in rows[column].unique() if column else [None]:
            one = _narrowed(block, column, value, named=column and rows[column].nunique() > 1)
            yield _decided(one, _estimate(one, evidence), scale=evidence.settings.get("scale"))
    except NothingSelected as nothing:
        reason = f"table {name}.csv has {nothing}"
        if "needs" in block:
            reason = f"needs {block['needs']}, as at scale {' or '.join(block['scales'])}"
        yield _row(block, NOT_RUN, reason)


def _narrowed(block: Block, column: str | None, value: str | None, *, named: bool) -> Block:
    """Return a block for one value of its column `each`; where there are several it is named."""
    if column is None:
        return block
    one = {key: block[key] | {column: value} for key in ("of", "minus", "over") if key in block}
    if named:
        one |= {"id": f"{block['id']}/{value}", "claim": f"{block['claim'].rstrip()} ({value})"}
    return block | one


def _estimate(block: Block, evidence: Evidence) -> Estimate:
    table = evidence.tables[block["table"]]
    one, *others = (
        sample(chosen_rows(table, block[key], evidence.settings))
        for key in ("of", "minus", "over")
        if key in block
    )
    if not others:
        found = one.summary
    else:
        found = (difference if "minus" in block else ratio)(one, others[0])
    if "counted" in block:
        return replace(found, low=found.value, high=found.value, how="counted, not estimated")
    return found


def _decided(block: Block, found: Estimate, *, scale: str | None) -> dict[str, Any]:
    decision = verdict(found, region(block))
    reason = found.how
    if decision == UNDECIDED and not np.isnan(found.low):
        reason = f"the interval covers the border; {reason}"
    if "small_lm" in block and scale == SMALL:
        reason += f"; the LM of this scale cannot decide it: {' '.join(block['small_lm'].split())}"
    numbers = {"ours": found.value, "ci_low": found.low, "ci_high": found.high}
    if "counted" not in block:  # which has no error
        numbers["p"] = p_value(found, region(block))
    return _row(block, decision, reason) | numbers | {"n": found.n, "unit": found.unit}


def _row(block: Block, decision: str, reason: str) -> dict[str, Any]:
    margin = block["margin"]
    shown = f"{margin[0]:g} to {margin[1]:g}" if isinstance(margin, list) else f"{margin:g}"
    kind = {"minus": "difference ", "over": "ratio "}
    compared = next((word for key, word in kind.items() if key in block), "")
    kept = {key: block[key] for key in ("id", "paper", "exhibit", "theirs") if key in block}
    return kept | {
        "claim": " ".join(block["claim"].split()),
        "relation": f"{compared}{block['relation']} {shown}",
        "margin": shown,
        "margin_source": " ".join(block["margin_source"].split()),
        "verdict": decision,
        "reason": reason,
        "whose": OURS if "ours" in block or "stricter_than" in block else PAPERS,
        "stricter_than": block.get("stricter_than", ""),
    }
