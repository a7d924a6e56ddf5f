"""Rows about a scored text: values by definition, intervals around them."""

import numpy as np
import pytest

from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.scored_text import ScoredText
from knnlm.evidence.tables import tidy
from knnlm.runtime.seeds import numpy_generator

N_DOCUMENTS, N_EACH = 40, 20
N_TOKENS = N_DOCUMENTS * N_EACH
NAMES = {"experiment": "e", "method": "m"}


@pytest.fixture
def text():
    generator = numpy_generator(0, "text")
    return ScoredText(
        words=generator.integers(0, 3, N_TOKENS).astype(np.uint8),
        lines=generator.integers(0, 2, N_TOKENS).astype(np.uint8),
        bootstrap=DocumentBootstrap(
            np.repeat(np.arange(N_DOCUMENTS), N_EACH), samples=200, generator=generator
        ),
    )


@pytest.fixture
def nll():
    return numpy_generator(1, "nll").gamma(2.0, size=N_TOKENS)


def by_metric(rows):
    return tidy(rows).set_index("metric")


def test_perplexities_have_their_unit_count_and_an_interval_around_them(text, nll):
    table = by_metric(text.perplexities(NAMES, nll))

    n_words, n_lines = int(text.words.sum()), int(text.lines.sum())
    assert table["n"].to_dict() == {
        "perplexity_per_token": N_TOKENS,
        "perplexity_per_word": n_words + n_lines,
        "perplexity_per_raw_word": n_words,
    }
    np.testing.assert_allclose(np.log(table["value"]) * table["n"], nll.sum(), rtol=1e-12)
    assert (table["ci_low"] < table["value"]).all()
    assert (table["value"] < table["ci_high"]).all()


def test_the_change_in_percent_is_that_of_the_two_perplexities(text, nll):
    better = nll - 0.1 * numpy_generator(2, "gain").random(N_TOKENS)

    table = by_metric(text.differences(NAMES, better, nll, against="lm"))

    before, after = (by_metric(text.perplexities(NAMES, x))["value"] for x in (nll, better))
    for unit in ("token", "word"):
        ratio = after[f"perplexity_per_{unit}"] / before[f"perplexity_per_{unit}"]
        change = table.loc[f"perplexity_per_{unit}_change_vs_lm"]
        assert change["value"] == pytest.approx(100 * (ratio - 1), rel=1e-9)
        assert change["ci_low"] < change["value"] < change["ci_high"] < 0


def test_pairing_leaves_out_what_both_methods_share(text, nll):
    paired = text.mean_difference(NAMES, (nll - 0.1) - nll, against="lm")

    assert paired["value"] == pytest.approx(-0.1)
    assert paired["ci_high"] - paired["ci_low"] < 1e-12


def test_the_gain_of_a_class_is_the_mean_over_its_tokens(text, nll):
    mask = np.arange(N_TOKENS) % 3 == 0

    row = text.mean_difference(NAMES, nll, against="lm", mask=mask)

    assert row["value"] == pytest.approx(nll[mask].mean(), rel=1e-12)
    assert row["n"] == mask.sum()
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_the_difference_of_two_classes_is_that_of_their_gains_with_a_narrower_interval(text):
    shared = np.repeat(numpy_generator(4, "level").normal(0, 5, N_DOCUMENTS), N_EACH)
    nll = shared + numpy_generator(5, "token").normal(0, 0.1, N_TOKENS)
    one = np.arange(N_TOKENS) % 4 == 0
    gains = [text.mean_difference(NAMES, nll, against="lm", mask=mask) for mask in (one, ~one)]

    row = text.difference_of_classes(NAMES, nll, one, ~one, against="lm")

    assert row["value"] == pytest.approx(gains[0]["value"] - gains[1]["value"], rel=1e-9)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert row["ci_high"] - row["ci_low"] < 0.1 * (gains[0]["ci_high"] - gains[0]["ci_low"])
    assert row["n"] == N_TOKENS


def test_a_share_counts_what_holds(text):
    hits = np.arange(N_TOKENS) % 4 == 0

    assert text.share(NAMES, "hits_at_1", hits)["value"] == 0.25
