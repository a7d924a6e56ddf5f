"""The LM of another domain with its own datastore, on that domain."""

import pytest
from scored_run_artifacts import CORPUS, SETTINGS, write_run

from knnlm.evidence.plotting import look
from knnlm.evidence.tables import select
from knnlm.experiments.second_domain.checks import check
from knnlm.experiments.second_domain.figure import draw
from knnlm.experiments.second_domain.table import evaluate
from knnlm.runtime.settings import SettingsError

OWN = {"second_domain": {"datastore": "longer"}, "corpus": "the subject"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    inputs = write_run(tmp_path_factory.mktemp("run"), seeds=(0,), indexes=("exact",))
    return evaluate(inputs, SETTINGS | OWN)["table"]


def test_all_rows_are_of_the_second_corpus_and_of_the_model_of_its_datastore(table):
    assert set(table["corpus"]) == {CORPUS}
    assert set(table["model"]) == {"longer"}
    assert set(table["split"]) == {"validation", "test"}


def test_knn_is_compared_with_its_own_lm(table):
    of = {"split": "test", "metric": "perplexity_per_token"}
    lm = select(table, method="lm", **of)["value"].item()
    knn = select(table, method="knn_lm", setting="exact/tuned", **of)["value"].item()
    metric = "perplexity_per_token_change_vs_lm"
    change = select(table, split="test", setting="exact/tuned", metric=metric)["value"].item()

    assert change == pytest.approx(100 * (knn / lm - 1))


def test_the_figure_has_the_tuned_and_the_published_point(table):
    with look():
        axes = draw({"table": table}).axes[0]

    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "exact/tuned",
        "exact/published",
    ]


def settings_with(**store):
    return OWN | {
        "datastores": {"longer": {"model": "longer", "corpus": "letters"} | store},
        "models": {"longer": {"corpus": "letters"}},
    }


def test_a_datastore_of_another_corpus_than_its_lm_is_refused():
    check(settings_with())

    with pytest.raises(SettingsError, match=r"datastores.longer.corpus: expected 'letters'.*'web'"):
        check(settings_with(corpus="web"))


def test_the_subject_is_no_second_domain():
    with pytest.raises(SettingsError, match="expected another corpus than the subject"):
        check(settings_with() | {"corpus": "letters"})
