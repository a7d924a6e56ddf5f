"""The table and the figure on a small corpus whose artifacts are written by hand."""

import numpy as np
import pandas as pd
import pytest
from scored_run_artifacts import CORPUS, LENGTH, N_DOCUMENTS, SETTINGS, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.memorizing_lm.checks import check
from knnlm.experiments.memorizing_lm.epochs import by_epoch
from knnlm.experiments.memorizing_lm.figure import draw
from knnlm.experiments.memorizing_lm.table import ALONE, MIXED, SAME_WEIGHT, TUNED, evaluate
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.runtime.artifacts import ArtifactError, save_array, write_manifest
from knnlm.runtime.settings import SettingsError

EPOCH = N_DOCUMENTS * LENGTH  # tokens of train
MEMORIZING, THIRD = "longer", "third"  # what the artifacts call a second model; and the control
ALL = SETTINGS | {
    "memorizing_lm": {"model": MEMORIZING},
    "datastores": {"base": {"model": "base"}, "longer": {"model": THIRD}},
}
LOSSES = {"base": [5.0, 3.0, 2.0], THIRD: [5.0, 3.0, 2.0, 1.5], MEMORIZING: [1.2, 0.5]}
BY = {"lm": "base", "control": THIRD, ALONE: MEMORIZING}


def write_model(root, name, losses, **settings):
    """Write a model of which each epoch has one row in the log."""
    folder = root / f"models/{name}/seed0"
    folder.mkdir(parents=True)
    tokens = EPOCH * np.arange(1, len(losses) + 1)
    pd.DataFrame({"tokens": tokens, "loss": losses}).to_parquet(folder / "training.parquet")
    write_manifest(
        folder,
        kind="model",
        names={"model": name, "seed": "0"},
        settings={"model": settings, "seed": 0},
        made_from={},
        contents={"tokens": int(tokens[-1])},
    )
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    found = write_run(root, seeds=[0], indexes=["exact"])
    for split in ("validation", "test"):  # where one LM is unsure the other is not
        base, other = (
            root / f"queries/{name}/seed0/{CORPUS}/{split}/lm_log_probs.npy"
            for name in ("base", MEMORIZING)
        )
        save_array(other, np.log(0.65 - np.exp(np.load(base))))
    models = [write_model(root, name, LOSSES[name]) for name in ("base", THIRD)]
    models.append(write_model(root, MEMORIZING, LOSSES[MEMORIZING], starts_from="base"))
    return found | {"models": models}


@pytest.fixture(scope="module")
def tables(inputs):
    return evaluate(inputs, ALL)


@pytest.fixture(scope="module")
def run(inputs):
    return ScoredRun.of("memorizing_lm", inputs, ALL)


def probabilities(run, split):
    """Return p of each target by LM and memorizing LM."""
    return [np.exp(-run.scored(0, split, model=name).nll) for name in ("base", MEMORIZING)]


def perplexity(p):
    return np.exp(-np.log(p).mean())


def value(table, method, setting, metric):
    return select(table, method=method, setting=setting, metric=metric)["value"].item()


def test_the_weight_is_the_best_on_validation_and_the_mixture_is_reported_on_test(run, tables):
    table = tables["table"]
    lm, other = probabilities(run, "validation")
    lmbdas = np.linspace(0.05, 0.95, 10)
    best = min(lmbdas, key=lambda w: perplexity((1 - w) * lm + w * other))

    assert value(table, MIXED, TUNED, "lmbda") == pytest.approx(best)
    lm, other = probabilities(run, "test")
    mixed = (1 - best) * lm + best * other
    assert value(table, MIXED, TUNED, "perplexity_per_token") == pytest.approx(perplexity(mixed))
    assert value(table, ALONE, "", "perplexity_per_token") == pytest.approx(perplexity(other))
    change = 100 * (perplexity(other) / perplexity(lm) - 1)
    found = value(table, ALONE, "", "perplexity_per_token_change_vs_lm")
    assert found == pytest.approx(change)


def test_knn_stands_beside_it_at_its_own_weight_and_at_that_of_the_memorizing_lm(run, tables):
    table, lm = tables["table"], run.scored(0)
    retrieved = run.retrieved(lm)
    weight = value(table, MIXED, TUNED, "lmbda")
    at_weight = lm.knn_nll(retrieved.found, retrieved.tuned.point._replace(lmbda=weight))
    assert weight != pytest.approx(retrieved.tuned.point.lmbda)

    for setting, nll in {TUNED: retrieved.nll, SAME_WEIGHT: at_weight}.items():
        found = value(table, "knn_lm", setting, "perplexity_per_token")
        assert found == pytest.approx(np.exp(nll.mean()))
    nats = value(table, MIXED, TUNED, "perplexity_per_token")
    for name, nll in {"knn_lm": retrieved.nll, "knn_lm_at_its_weight": at_weight}.items():
        difference = value(table, MIXED, TUNED, f"nats_per_token_vs_{name}")
        assert difference == pytest.approx(np.log(nats) - nll.mean())


def test_losses_by_epoch_go_on_where_the_weights_came_from(tables):
    curves, table = tables["epochs"], tables["table"]
    of = {method: select(curves, method=method) for method in BY}

    assert of["lm"]["epoch"].tolist() == [1, 2, 3]
    assert of[ALONE]["epoch"].tolist() == [4, 5]
    for method, name in BY.items():
        assert of[method]["value"].tolist() == LOSSES[name]
        assert (of[method]["n"] == EPOCH).all()
        assert value(table, method, "", "train_loss") == LOSSES[name][-1]
    assert value(table, ALONE, "", "epochs") == 5
    assert value(table, ALONE, "", "tokens_read") == 5 * EPOCH
    assert value(table, ALONE, "", "train_loss_vs_lm") == 0.5 - 2.0
    assert value(table, ALONE, "", "train_loss_vs_control") == 0.5 - 1.5


def test_an_epoch_weighs_what_was_read_in_it():
    # Updates of 40 tokens in epochs of 100; a validation made a row of its own at 60 and at 160.
    log = pd.DataFrame(
        {
            "tokens": [40, 60, 80, 120, 160, 160, 200],
            "loss": [4.0, 3.0, 2.5, 2.0, 1.5, np.nan, 1.0],
        }
    )

    losses = by_epoch(log, epoch=100, before=300)

    assert losses.epochs.tolist() == [4, 5]
    assert losses.tokens.tolist() == [80, 120]
    assert losses.losses == pytest.approx(
        [(40 * 4 + 20 * 3 + 20 * 2.5) / 80, (40 * 2 + 40 * 1.5 + 40 * 1) / 120]
    )
    assert losses.last == pytest.approx((40 * 2 + 40 * 1.5 + 40 * 1) / 120)  # 120, 160 and 200
    assert losses.read == 500


def test_a_model_whose_start_is_not_among_the_inputs_is_named(inputs):
    models = [folder for folder in inputs["models"] if "base" not in folder.parts]

    with pytest.raises(ArtifactError, match="a folder of model with model base, seed 0"):
        evaluate(inputs | {"models": models}, ALL)


def test_without_a_control_its_losses_are_left_out(inputs):
    tables = evaluate(inputs, ALL | {"baseline": ALL["baseline"] | {"control": None}})

    assert "train_loss_vs_control" not in set(tables["table"]["metric"])
    assert "control" not in set(tables["epochs"]["method"])
    assert len(draw(tables).axes[0].lines) == 2


def test_the_figure_shows_losses_and_changes_of_all_methods(tables):
    left, right = draw(tables).axes

    assert len(left.lines) == 3
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels == [
        "memorizing LM, alone",
        "LM + memorizing LM",
        "kNN-LM, at the same weight",
        "kNN-LM",
    ]


def settings_of(**models):
    base = {"source": "trained", "tokenizer": "own", "corpus": "gazetteer"}
    return {
        "memorizing_lm": {"model": "memorizing"},
        "baseline": {"datastore": "base"},
        "datastores": {"base": {"model": "base"}},
        "models": {name: base | models.get(name, {}) for name in ("base", "memorizing")},
    }


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            {"memorizing": {"tokenizer": "t"}},
            r"with the tokenizer of 'base', own, got 'memorizing'",
        ),
        ({"memorizing": {"corpus": "c"}}, r"with the corpus of 'base', gazetteer, .* with c; let"),
        ({"base": {"source": "pretrained"}}, r"trained here, got 'base', which is pretrained"),
    ],
)
def test_a_model_that_cannot_be_compared_is_refused(models, message):
    check(settings_of())

    with pytest.raises(SettingsError, match=rf"memorizing_lm\.model: expected .*{message}"):
        check(settings_of(**models))


def test_the_lm_of_the_baseline_is_refused_as_the_memorizing_one():
    settings = settings_of() | {"memorizing_lm": {"model": "base"}}

    with pytest.raises(SettingsError, match=r"expected another model than the baseline's own"):
        check(settings)
