"""A kNN-LM by the size of its datastore, beside LMs without one."""

import numpy as np
import pytest
from scored_run_artifacts import (
    CORPUS,
    FIRST_WORD,
    LENGTH,
    N_DOCUMENTS,
    SETTINGS,
    SPLITS,
    WORDS,
    K,
    write_queries,
    write_text_and_tokens,
)

from knnlm.evidence.tables import select
from knnlm.experiments.more_data.checks import check
from knnlm.experiments.more_data.figure import draw
from knnlm.experiments.more_data.sizes import crossing
from knnlm.experiments.more_data.table import _of, evaluate
from knnlm.experiments.shared.scored_split import ScoredSplit
from knnlm.lm.scoring import load_queries
from knnlm.plan.sizes import own_size
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.sampling import Entries
from knnlm.retrieval.shares import KIND, load_share_neighbors
from knnlm.runtime.artifacts import ArtifactError, identity, write_manifest
from knnlm.runtime.settings import SettingsError

SHARES = [0.5, 1.0]
NAMES = {"datastore": "part", "seed": "0", "index": "exact", "corpus": CORPUS}
STORE = {"model": "base", "queries": None, "stride": 4}
SHAPE = {"layers": 2, "width": 8, "ffn_width": 16, "context": 8, "tied_embeddings": True}
OWN = {
    "datastores": {"base": STORE, "part": STORE},
    "more_data": {"datastore": "part", "index": "exact", "whole": "longer", "further": "longer"},
    "size": own_size(SHAPE, 10)._asdict(),
    "model": SHAPE,
    "further": {"training": {"tokens": 1000}},
}


def write_shares(root, queries, split):
    """Write neighbors in two shares; those that only the whole has are right more often."""
    folder = root / f"share_neighbors/part/seed0/exact/{CORPUS}/{split}"
    folder.mkdir(parents=True)
    targets = load_queries(queries).targets
    rng = np.random.default_rng(len(split))
    shape = (len(targets), 2 * K)
    levels = np.tile(np.array([1, 0], np.uint8), (len(targets), K))
    right = rng.random(shape) < np.where(levels == 1, 0.8, 0.3)
    other = rng.integers(1, FIRST_WORD + len(WORDS), size=shape)
    np.savez(
        folder / "block-00000.npz",
        ids=np.tile(np.arange(2 * K), (len(targets), 1)),
        distances=np.sort(rng.gamma(4.0, size=shape), axis=1).astype(np.float32),
        values=np.where(right, targets[:, None], other).astype(np.int32),
        levels=levels,
    )
    write_manifest(
        folder,
        kind=KIND,
        names={
            "datastore": "part",
            "seed": "0",
            "index": "exact",
            "corpus": CORPUS,
            "split": split,
        },
        settings={},
        made_from={"queries": identity(queries, kind="queries")},
        contents={
            "n_queries": len(targets),
            "of_queries": len(targets),
            "block_queries": len(targets),
            "k": K,
            "shares": SHARES,
            "search": {"engine": "exact", "metric": "l2"},
            "entries": Entries(N_DOCUMENTS * LENGTH - 1).described(),
        },
    )
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    _, tokens = write_text_and_tokens(root)
    named = {"seed": "0"}
    queries = {s: write_queries(root, tokens, model="base", split=s, **named) for s in SPLITS}
    other = write_queries(root, tokens, model="longer", split="test", **named)
    shares = [write_shares(root, queries[split], split) for split in SPLITS]
    return {"queries": [*queries.values(), other], "shares": shares}


@pytest.fixture(scope="module")
def table(inputs):
    return evaluate(inputs, SETTINGS | OWN)["table"]


def value(table, **names):
    return select(table, **names)["value"].item()


def test_each_size_has_its_perplexity_at_the_point_that_validation_chose(inputs, table):
    test = load_queries(inputs["queries"][1])
    found = load_share_neighbors(inputs["shares"][1])
    for share in SHARES:
        setting = f"{share:g}/tuned"
        k, t, lmbda = (
            value(table, setting=setting, metric=name) for name in ("k", "temperature", "lmbda")
        )
        near = found.of(share)
        k = int(k)
        knn = knn_log_probs(near.distances[:, :k], near.values[:, :k], test.targets, temperature=t)
        expected = np.exp(-mix_log_probs(test.lm_log_probs, knn, lmbda).mean())
        got = value(table, setting=setting, metric="perplexity_per_token", split="test")
        assert got == pytest.approx(expected, rel=1e-6)
        assert value(table, setting=f"{share:g}/largest_k", metric="k") == K
    assert value(table, setting="0.5/tuned", metric="datastore_entries") == 240


def test_a_size_is_compared_with_the_next_smaller_one_and_with_every_lm(table):
    levels = select(table, metric="perplexity_per_token", method="knn_lm").set_index("setting")
    half, whole = levels["value"][["0.5/tuned", "1/tuned"]]
    change = "perplexity_per_token_change_vs_"
    assert value(table, setting="1/tuned", metric=f"{change}next_smaller") == pytest.approx(
        100 * (whole / half - 1)
    )
    compared = select(table, metric=f"{change}next_smaller")
    assert compared["setting"].tolist() == ["1/tuned", "1/largest_k"]
    for method in ("lm", "whole", "further"):
        level = value(table, method=method, metric="perplexity_per_token")
        found = value(table, setting="1/tuned", metric=change + method)
        assert found == pytest.approx(100 * (whole / level - 1))


def test_the_weight_has_an_interval_of_retuned_documents_that_holds_it(table):
    for share in SHARES:
        row = select(table, setting=f"{share:g}/largest_k", metric="lmbda").iloc[0]
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["share"] == share
    difference = select(table, setting="1/largest_k", metric="lmbda_vs_smallest").iloc[0]
    lmbdas = [value(table, setting=f"{s}/largest_k", metric="lmbda") for s in ("1", "0.5")]
    assert difference["value"] == pytest.approx(lmbdas[0] - lmbdas[1])
    assert difference["ci_low"] > 0, "neighbors that are right more often weigh more"


def test_the_figure_has_a_level_for_each_lm_and_a_curve_over_the_sizes(table):
    left, right = draw({"table": table}).axes

    assert [len(line.get_xdata()) for line in left.lines] == [2, 2, 2, len(SHARES)]
    assert right.get_ylabel().startswith("best")


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.2, 0.1, -0.1, -0.2], 0.5),  # half way between 0.25 and 0.75
        ([0.2, 0.0, -0.1, -0.2], 0.25),
        ([-0.1, 0.1, 0.1, 0.1], 0.0),  # the LM alone is better already
        ([0.4, 0.3, 0.2, 0.1], np.inf),
    ],
)
def test_the_crossing_is_linear_between_two_sizes(differences, expected):
    shares = np.array([0.0, 0.25, 0.75, 1.0])

    assert crossing(shares, np.array(differences)[:, None]).item() == pytest.approx(expected)


def test_neighbors_of_other_queries_are_refused(inputs):
    validation, test = (queries for queries in inputs["queries"][:2])

    with pytest.raises(ArtifactError, match="was made from another queries"):
        _of(inputs["shares"][0], ScoredSplit({}, load_queries(test), np.arange(1), {}))
    loaded = _of(inputs["shares"][0], ScoredSplit({}, load_queries(validation), np.arange(1), {}))
    assert loaded.shares == SHARES


MODELS = {
    "part": {"tokenizer": "own"},
    "whole": {"tokenizer": "own"},
    "further": {"tokenizer": "own", "starts_from": "part"},
    "foreign": {"tokenizer": "theirs"},
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": "fused"}, r"more_data.index: expected an index of a stored datastore"),
        ({"whole": "foreign"}, r"more_data.whole: expected a model with the tokenizer of 'part'"),
        ({"further": "whole"}, r"more_data.further: expected a model that starts from 'part'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_job(changed, message):
    own = {"datastore": "part", "index": "exact", "whole": "whole", "further": "further"}
    settings = {
        "more_data": own | changed,
        "models": MODELS,
        "datastores": {"part": {"model": "part"}},
        "indexes": {"exact": {"engine": "exact"}, "fused": {"engine": "fused"}},
    }

    with pytest.raises(SettingsError, match=message):
        check(settings)
