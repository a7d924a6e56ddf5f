"""N-grams are counted on train alone, mixed at weights that validation chose, compared in pairs."""

import json

import numpy as np
import pytest
from scored_run_artifacts import CORPUS, FIRST_WORD, SETTINGS, WORDS, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.ngram_interpolation.counting import load_ngrams, score_ngrams
from knnlm.experiments.ngram_interpolation.figure import draw
from knnlm.experiments.ngram_interpolation.table import evaluate
from knnlm.lm.ngram import Documents, log_probs
from knnlm.runtime.artifacts import MANIFEST, ArtifactError, identity
from knnlm.runtime.making import Target
from knnlm.text.tokens import load_tokens

ORDERS = [2, 4]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    given = write_run(root, models=["base"], datastores=["base"], indexes=["exact"])
    (tokens,) = given["tokens"]
    manifest = json.loads((tokens / MANIFEST).read_text())
    assert "tokenizer" not in manifest["made_from"]
    folder = root / f"ngrams/{CORPUS}"
    score_ngrams(
        Target(folder, "f", {"corpus": CORPUS}), train=tokens, tokens=tokens, orders=ORDERS
    )
    return given | {"ngrams": [folder]}


@pytest.fixture(scope="module")
def table(inputs):
    return evaluate(inputs, SETTINGS)["table"]


def test_every_token_is_scored_by_the_ngrams_of_train(inputs):
    (tokens,), (folder,) = inputs["tokens"], inputs["ngrams"]
    train, test = (
        Documents(stream.tokens, stream.documents)
        for stream in (load_tokens(tokens, split) for split in ("train", "test"))
    )

    found = load_ngrams(folder, "test", tokens=identity(tokens, kind="tokens"))

    (expected,) = log_probs(train, [test], orders=ORDERS, vocabulary=FIRST_WORD + len(WORDS))
    assert list(found) == ORDERS
    assert np.array_equal(np.stack([*found.values()]), expected, equal_nan=True)


def test_an_order_above_what_the_text_has_stops_the_first_job(inputs, tmp_path):
    (tokens,) = inputs["tokens"]

    with pytest.raises(ValueError, match=r"expected orders up to 12, .* got 13; lower the order"):
        score_ngrams(Target(tmp_path / "n", "f"), train=tokens, tokens=tokens, orders=[2, 13])


def test_ngrams_of_another_text_stop_the_evaluation(inputs):
    with pytest.raises(ArtifactError, match="was made from another tokens"):
        load_ngrams(inputs["ngrams"][0], "test", tokens="of another text")


def test_each_order_is_mixed_at_the_weights_that_validation_chose(inputs, table):
    rows = select(table, method="ngram", setting="order 4", seed="1")
    weight = select(rows, metric="weight_on_ngram")["value"].item()
    (queries,) = (f for f in inputs["queries"] if f.match(f"base/seed1/{CORPUS}/test"))
    lm = np.load(queries / "lm_log_probs.npy")
    targets = np.load(queries / "positions.npy") + 1
    ngram = np.load(inputs["ngrams"][0] / "test.npy")[1, targets]

    perplexity = select(rows, split="test", metric="perplexity_per_token")["value"].item()

    mixed = (1 - weight) * np.exp(lm) + weight * np.exp(ngram)
    assert perplexity == pytest.approx(np.exp(-np.log(mixed).mean()))


def test_the_share_of_the_gain_is_that_of_the_perplexities(table):
    levels = {
        method: select(table, method=method, seed="0", split="test", metric="perplexity_per_token")
        for method in ("lm", "knn_lm", "ngram")
    }
    lm, knn_lm = (levels[method]["value"].item() for method in ("lm", "knn_lm"))
    ngram = select(levels["ngram"], setting="order 2")["value"].item()

    share = select(table, setting="order 2", seed="0", metric="share_of_knn_gain")

    assert share["value"].item() == pytest.approx((lm - ngram) / (lm - knn_lm), rel=1e-6)
    assert share["ci_low"].item() < share["value"].item() < share["ci_high"].item()


def test_the_best_order_is_the_best_on_validation(table):
    chosen = int(select(table, metric="order", seed="0")["value"].item())
    validation = select(
        table, method="ngram", seed="0", split="validation", metric="perplexity_per_token"
    ).set_index("setting")["value"]

    orders = [f"order {order}" for order in ORDERS]
    assert validation[orders].idxmin() == f"order {chosen}"
    assert validation["best order"] == validation[f"order {chosen}"]


def test_ngrams_beside_knn_are_compared_with_both_alone(table):
    rows = select(table, method="knn_lm_ngram", setting="best order", split="test", seed="all")

    assert {f"perplexity_per_word_change_vs_{name}" for name in ("lm", "knn_lm", "ngram")} <= {
        *rows["metric"]
    }


def test_the_figure_has_a_curve_over_the_orders(table):
    left, right = draw({"table": table}).axes

    assert left.get_xlabel() == right.get_xlabel() == "order of the n-grams"
    assert [[*line.get_xdata()] for line in left.lines[-2:]] == [ORDERS, ORDERS]
    assert [*left.get_xticks()] == ORDERS
