"""The table, the examples and the figure on a small corpus whose artifacts are written by hand."""

from itertools import pairwise

import numpy as np
import pytest
from scored_run_artifacts import (
    END_OF_DOCUMENT,
    FIRST_WORD,
    LENGTH,
    NEWLINE,
    SEEDS,
    SETTINGS,
    WORDS,
    write_run,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from knnlm.evidence.plotting import LABELS
from knnlm.evidence.tables import select
from knnlm.experiments.rare_patterns.checks import check
from knnlm.experiments.rare_patterns.classes import COUNT_BINS, binned
from knnlm.experiments.rare_patterns.examples import chosen
from knnlm.experiments.rare_patterns.figure import draw
from knnlm.experiments.rare_patterns.table import evaluate, knn_probs, largest
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.runtime.artifacts import write_manifest
from knnlm.runtime.settings import SettingsError
from knnlm.text.tokens import load_tokens

OWN = {
    "contexts": [1, 2],
    "longest": 6,
    "near_duplicate": 3,
    "gains": 0.1,
    "examples": {"count": 5, "context_tokens": 4, "neighbors": 2},
}
ALL = SETTINGS | {"rare_patterns": OWN, "search": {"k": 8}}
METRIC = "nats_per_token_vs_lm"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    found = write_run(root, indexes=("exact",))
    found |= {"stored_text": found["text"], "stored_tokens": found["tokens"]}
    ids = {"<eod>": END_OF_DOCUMENT, "<line>": NEWLINE}
    ids |= {f"<{word}>": FIRST_WORD + place for place, word in enumerate(WORDS)}
    tokenizer = root / "tokenizers/own"
    tokenizer.mkdir(parents=True)
    Tokenizer(WordLevel(ids, unk_token="<eod>")).save(str(tokenizer / "tokenizer.json"))
    write_manifest(
        tokenizer,
        kind="tokenizer",
        settings={},
        made_from={},
        contents={"vocabulary_size": len(ids), "end_of_document": END_OF_DOCUMENT},
    )
    return found | {"tokenizer": [tokenizer]}


@pytest.fixture(scope="module")
def tables(inputs):
    return evaluate(inputs, ALL)


@pytest.fixture(scope="module")
def run(inputs):
    return ScoredRun.of("rare_patterns", inputs, ALL)


def contexts(inputs, run):
    """Return how often train has the two tokens before each target, counted one by one."""
    (folder,) = inputs["tokens"]
    train, test = (load_tokens(folder, split).tokens.tolist() for split in ("train", "test"))
    pairs = list(pairwise(train))[:-1]  # the last has no token behind it
    places = run.scored(0).queries.positions.tolist()
    return np.array(
        [
            pairs.count((test[at - 1], test[at])) if at % LENGTH else 0  # a document begins there
            for at in places
        ]
    )


def test_a_class_is_the_mean_change_after_contexts_that_train_has_so_often(inputs, run, tables):
    scored = run.scored(1)
    change = run.retrieved(scored).nll - scored.nll
    counts = contexts(inputs, run)

    rows = select(tables["table"], method="knn_lm", metric=METRIC, seed="1").set_index("setting")
    inside = (counts >= 3) & (counts <= 10)
    row = rows.loc["preceding 2: 3-10"]
    assert row["n"] == inside.sum() > 30
    assert row["value"] == pytest.approx(change[inside].mean())
    of_length_2 = rows.index.str.startswith("preceding 2: ") & ~rows.index.str.contains("minus")
    assert rows[of_length_2]["n"].sum() == len(counts)
    rare, frequent = (counts >= 1) & (counts <= 2), counts > 10
    assert rare.any()
    assert frequent.any()
    expected = change[rare].mean() - change[frequent].mean()
    assert rows.loc["preceding 2: 1-2 minus > 10", "value"] == pytest.approx(expected)


def test_each_lm_seed_has_rows_and_the_control_the_same_classes(tables):
    rows = select(tables["table"], metric=METRIC)
    settings = {
        (method, seed): set(select(rows, method=method, seed=str(seed))["setting"])
        for method in ("knn_lm", "control")
        for seed in SEEDS
    }

    assert len({frozenset(found) for found in settings.values()}) == 1
    assert "target word: > 300" not in settings["knn_lm", 0]  # train has 400 words of 7 kinds
    assert {"common suffix: 2-3", "target word: 51-300"} <= settings["knn_lm", 0]


def test_near_duplicates_are_counted_among_the_largest_gains_and_the_others(run, tables):
    rows = select(tables["table"], metric="share_of_near_duplicates", seed="0", method="knn_lm")
    of = rows.set_index("setting")
    scored = run.scored(0)
    gains = knn_probs(run.retrieved(scored)) - np.exp(-scored.nll)

    assert of.loc["largest gains", "n"] == round(0.1 * len(gains))
    assert of.loc["largest gains", "n"] + of.loc["others", "n"] == len(gains)
    difference = of.loc["largest gains", "value"] - of.loc["others", "value"]
    assert of.loc["largest gains minus others", "value"] == pytest.approx(difference)
    control = select(tables["table"], metric="share_of_near_duplicates", seed="0", method="control")
    theirs = control.set_index("setting").loc["largest gains", "value"]
    above = of.loc["largest gains", "value"] - theirs
    assert of.loc["largest gains minus those of the control", "value"] == pytest.approx(above)


def test_examples_have_the_largest_gains_one_of_a_document_and_tell_their_neighbors(
    inputs, run, tables
):
    scored, examples = run.scored(0), tables["examples"]
    retrieved = run.retrieved(scored)
    gains = knn_probs(retrieved) - np.exp(-scored.nll)
    best = int(gains.argmax())
    test, train = (load_tokens(inputs["tokens"][0], split) for split in ("test", "train"))
    names = ["<eod>", "<line>", *(f"<{word}>" for word in WORDS)]

    assert len(examples) == 5 * 2
    assert examples["document"].nunique() == 5
    first, second = examples.to_dict("records")[:2]
    position = int(scored.queries.positions[best])
    begin = max(position - 3, position // LENGTH * LENGTH + 1)
    assert first["context"].split() == [names[t] for t in test.tokens[begin : position + 1]]
    assert first["target"] == names[scored.targets[best]]
    assert float(first["p_knn"]) - float(first["p_lm"]) == pytest.approx(gains[best], abs=1e-4)
    assert (first["neighbor"], second["neighbor"]) == (1, 2)
    assert second["neighbor_next"] == names[retrieved.found.values[best, 1]]
    entry = int(retrieved.found.ids[best, 1])
    begin = max(entry - 3, entry // LENGTH * LENGTH + 1)
    assert second["neighbor_context"].split() == [names[t] for t in train.tokens[begin : entry + 1]]


def test_of_equal_gains_the_first_counts():
    assert largest(np.array([0.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [False, True, True, False]
    gains = np.array([0.2, 0.9, 0.9, 0.5])
    assert chosen(gains, np.array([0, 1, 1, 2]), count=2) == [1, 3]


def test_a_bin_holds_its_last_number():
    masks = binned("x", np.array([0, 1, 2, 3, 300, 301]), COUNT_BINS, "> 300")

    assert {name: mask.nonzero()[0].tolist() for name, mask in masks.items()} == {
        "x: 0": [0],
        "x: 1-2": [1, 2],
        "x: 3-10": [3],
        "x: 51-300": [4],
        "x: > 300": [5],
    }


def test_without_a_control_there_are_no_rows_of_it(inputs):
    baseline = ALL["baseline"] | {"control": None}

    table = evaluate(inputs, ALL | {"baseline": baseline})["table"]

    assert set(table["method"]) == {"knn_lm"}
    assert not table["metric"].str.contains("control").any()
    assert len(draw({"table": table}).axes) == 3


def test_the_figure_shows_words_contexts_and_suffixes_of_both_methods(tables):
    left, middle, right = draw({"table": tables["table"]}).axes

    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        LABELS["knn_lm"],
        LABELS["control"],
    ]
    assert middle.get_xlabel() == "times that train has the 2 tokens before it"
    assert [label.get_text() for label in right.get_xticklabels()][:2] == ["0-1", "2-3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contexts": [1, 7]}, r"rare_patterns\.contexts: expected at most .*longest, 6 .*got 7"),
        ({"near_duplicate": 7}, r"rare_patterns\.near_duplicate: expected at most .* got 7; raise"),
        (
            {"examples": OWN["examples"] | {"neighbors": 9}},
            r"rare_patterns\.examples\.neighbors: expected at most search\.k, 8, got 9",
        ),
    ],
)
def test_settings_that_ask_for_what_is_not_counted_are_refused(changes, message):
    check(ALL)

    with pytest.raises(SettingsError, match=message):
        check(ALL | {"rare_patterns": OWN | changes})
