"""The neighbor explorer as a page: passages colored by who predicts better, and why.

Every token is a link to what stands behind it, so the page can be read without its script.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knnlm.evidence.explorer.passages import RULES
from knnlm.evidence.pages import render, visible
from knnlm.runtime.artifacts import atomic_path

LIMIT_MIB = 5  # a page above this is slow to open and to mail
# nats by which log p_kNN is above log p_LM, and the class of the token's color and mark
STEPS = {
    -2.0: ("lm-2", "the LM predicts it much better"),
    -0.5: ("lm-1", "the LM predicts it better"),
    0.5: ("even", "both predict it alike"),
    2.0: ("knn-1", "kNN predicts it better"),
    math.inf: ("knn-2", "kNN predicts it much better"),
}


def write_explorer(*, output: Path, data: Path, run: str) -> None:
    """Write the page from the passages that `explore` found.

    Raises:
        ValueError: if the page would be larger than LIMIT_MIB.
    """
    found = json.loads(data.read_text(encoding="ascii"))
    page = render(
        "explorer/page.html",
        found=found,
        run=run,
        passages=[_described(passage, number) for number, passage in enumerate(found["passages"])],
        legend=list(STEPS.values()),
    )
    size = len(page.encode())
    if size > LIMIT_MIB << 20:
        raise ValueError(
            f"expected the explorer's page to have at most {LIMIT_MIB} MiB, got "
            f"{size / 2**20:.1f}; lower explorer.passage_tokens, neighbors or context_tokens"
        )
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def better(target: Mapping[str, float]) -> tuple[str, str]:
    """Return the class and the words for who gives a token the higher probability.

    Args:
        target: its probability by `lm` and by `knn`; the latter may be 0.
    """
    if target["knn"] == 0:
        return STEPS[-2.0]
    lead = math.log(target["knn"]) - math.log(max(target["lm"], 1e-300))
    return next(step for border, step in STEPS.items() if lead < border)


def _described(passage: dict[str, Any], number: int) -> dict[str, Any]:
    tokens = []
    for place, token in enumerate(passage["tokens"]):
        css, words = better(token["target"])
        tokens.append(
            token
            | {"id": f"p{number}-t{place}", "css": css, "words": words}
            | {"shown": visible(token["text"])}
            | {"weight": sum(neighbor["weight"] for neighbor in token["neighbors"])}
        )
    return passage | {"tokens": tokens, "about": RULES[passage["rule"]], "number": number}
