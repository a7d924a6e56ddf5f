"""The passages of the neighbor explorer are chosen by rule, and its page shows what was found."""

import json
import re

import numpy as np
import pytest
import torch
from lm_artifacts import stream_of

from knnlm.evidence.explorer.page import better, write_explorer
from knnlm.evidence.explorer.passages import choose, cut_passages
from knnlm.evidence.pages import percent, visible
from knnlm.experiments.shared.neighbor_explorer import Read, distributions, nearest_entries
from knnlm.retrieval.neighbors import Neighbors
from knnlm.retrieval.sampling import Entries
from knnlm.retrieval.tuning import Point


def entry(**changed):
    token = {
        "text": " <b>",
        "target": {"lm": 0.1, "knn": 0.6, "mixture": 0.35},
        "top": {
            name: [{"token": " <b>", "p": p, "hit": True}, {"token": "\n", "p": 0.01, "hit": False}]
            for name, p in (("lm", 0.1), ("knn", 0.6), ("mixture", 0.35))
        },
        "neighbors": [
            {"distance": 1.5, "weight": 0.7, "before": "said & done", "next": " <b>", "hit": True}
        ],
    }
    return token | changed


def write(folder, tokens, **changed):
    found = {"seed": 0, "index": "exact", "k": 8, "temperature": 2.5, "lmbda": 0.5}
    found |= {"entries": 1000, "queries": 20, "mean_change": 0.25}
    passage = {
        "rule": "typical",
        "change": 0.3,
        "document": 4,
        "before": "It was",
        "tokens": tokens,
    }
    (folder / "passages.json").write_text(json.dumps(found | {"passages": [passage]} | changed))
    write_explorer(output=folder / "explorer.html", data=folder / "passages.json", run="trial")
    return (folder / "explorer.html").read_text()


def test_passages_are_neighboring_tokens():
    positions = np.array([3, 4, 5, 6, 9, 10, 12, 13])

    pieces = cut_passages(positions, tokens=2)

    assert pieces == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]


def test_a_short_end_is_left_out_unless_nothing_else_is_there():
    assert cut_passages(np.arange(5), tokens=4) == [slice(0, 4)]
    assert cut_passages(np.arange(5), tokens=50) == [slice(0, 5)]


def test_each_rule_takes_its_own_passage_and_none_is_taken_twice():
    passages = [slice(i, i + 1) for i in range(5)]
    change = np.array([0.5, -1.0, 2.0, 0.4, 0.3])  # mean 0.44
    rare = np.array([False, False, True, False, True])

    chosen = choose(passages, change, rare)

    assert {rule: piece.start for rule, piece in chosen.items()} == {
        "largest_gain": 2,
        "largest_loss": 1,
        "rare_words": 4,  # 2 is as rare, but taken
        "typical": 3,
    }


def test_fewer_passages_than_rules_give_fewer():
    chosen = choose([slice(0, 1)], np.array([0.1]), np.array([True]))

    assert list(chosen) == ["largest_gain"]


@pytest.mark.parametrize(
    ("lm", "knn", "expected"),
    [
        (0.5, 0.0, "lm-2"),
        (0.5, 0.05, "lm-2"),
        (0.5, 0.25, "lm-1"),
        (0.5, 0.5, "even"),
        (0.25, 0.5, "knn-1"),
        (0.05, 0.5, "knn-2"),
        (0.0, 0.5, "knn-2"),
    ],
)
def test_a_token_is_marked_by_who_predicted_it_better(lm, knn, expected):
    assert better({"lm": lm, "knn": knn})[0] == expected


def test_the_page_shows_distributions_and_neighbors_of_every_token(tmp_path):
    page = write(tmp_path, [entry(), entry(text="\n")])

    links = re.findall(r'href="#(p0-t\d)"', page)
    assert links == ["p0-t0", "p0-t1"]
    assert all(page.count(f'id="{link}"') == 1 for link in links)
    assert page.count("said &amp; done") == 2
    assert " &lt;b&gt;</a>" in page
    assert "60 %" in page
    assert "with 70 % of the weight" in page


def test_a_page_that_would_be_too_large_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"explorer\.passage_tokens"):
        write(tmp_path, [entry(text="x" * 1000)] * 4000)


def test_blanks_of_a_token_are_seen():
    assert visible(" the\n") == "\u00b7the\u21b5"
    assert visible("") == "\u2205"


@pytest.mark.parametrize(
    ("p", "expected"), [(0.0, "0 %"), (1e-5, "< 0.01 %"), (0.12345, "12.3 %"), (1.0, "100 %")]
)
def test_percent_keeps_three_digits(p, expected):
    assert percent(p) == expected


class Spelled:
    """A tokenizer whose tokens are numbers, and the states of one query."""

    def decode(self, ids, **_):
        return " ".join(map(str, ids))

    def hidden(self, site):
        return np.ones((1, 4), np.float32)


def read_by_hand():
    """One query with two neighbors, of a datastore that holds half of the positions."""
    stream = stream_of([50])
    found = Neighbors(
        ids=np.array([[7, 9, -1]]),
        distances=np.array([[1.0, 3.0, np.inf]], np.float32),
        values=np.array([[4, 5, -1]], np.int32),
        places=np.array([0]),
        entries=Entries(50, share=0.5),
    )
    read = {"tokenizer": Spelled(), "queries": Spelled(), "head": torch.eye(6, 4)}
    return Read(**read, train=stream, test=stream, text="", found=found, point=Point(3, 2.0, 0.25))


def test_a_neighbor_is_shown_with_what_stands_before_it_and_its_share_of_the_weight():
    read = read_by_hand()

    shown = nearest_entries(read, 0, 5, {"neighbors": 3, "context_tokens": 2})

    weight = 1 / (1 + np.exp(-1.0))  # distances 1 and 3 at temperature 2
    assert [entry["weight"] for entry in shown] == pytest.approx([weight, 1 - weight], abs=1e-4)
    assert [entry["hit"] for entry in shown] == [False, True]
    for entry, position in zip(shown, read.found.entries.positions(np.array([7, 9])), strict=True):
        assert position > 9  # half of the positions are left out
        assert entry["before"] == Spelled().decode(read.train.tokens[position - 1 : position + 1])


def test_the_mixture_of_a_token_has_lmbda_of_what_its_neighbors_say():
    p = distributions(read_by_hand(), slice(0, 1))

    lm = torch.eye(6, 4).sum(1).double().softmax(0)
    weight = 1 / (1 + np.exp(-1.0))
    knn = torch.tensor([0, 0, 0, 0, weight, 1 - weight], dtype=torch.float64)
    torch.testing.assert_close(p["mixture"][0], 0.75 * lm + 0.25 * knn)
