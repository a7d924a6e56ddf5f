"""LMs that are trained another way are held against their control, and against kNN, in pairs."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from lm_artifacts import MODEL, VOCABULARY
from scored_run_artifacts import CORPUS, SETTINGS, called, write_run

from knnlm.evidence.tables import select, tidy
from knnlm.experiments.ruled_out.checks import check
from knnlm.experiments.ruled_out.subject import Subject
from knnlm.experiments.ruled_out.trained import TrainedLMs
from knnlm.experiments.shared.cost import flops_of_model
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.lm.model import create_model, save_model
from knnlm.runtime.artifacts import ArtifactError, save_array, write_manifest
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.places import places
from knnlm.runtime.settings import SettingsError, deep_merge, resolve

ROOT = Path(__file__).parents[4]
LMS = {"soft_labels_of_knn_lm": "soft", "mixture_of_softmaxes": "mixed"}
TRAINED = {"control": "short", "lms": LMS}
LMBDAS = np.linspace(0.05, 0.95, 10)  # of the grid in SETTINGS
BLOCKS = {name: {"model": name, "queries": None} for name in ("base", "short")}


@pytest.fixture
def inputs(tmp_path):
    made = write_run(
        tmp_path,
        seeds=[0],
        models=["base", "short", *LMS.values()],
        datastores=["base", "short"],
        indexes=["exact"],
    )
    made["models"] = []
    for name in ("short", *LMS.values()):
        folder = tmp_path / "models" / name / "seed0"
        shape = MODEL | ({"softmaxes": 2} if name == "mixed" else {})
        save_model(create_model(shape, vocabulary_size=VOCABULARY, seed=0), folder)
        write_manifest(folder, kind="model", settings={}, made_from={}, contents={})
        made["models"].append(called(folder, model=name, seed="0"))
    return made


def gather(inputs):
    settings = SETTINGS | {"lm_seeds": [0], "datastores": BLOCKS}
    run = ScoredRun.of("ruled_out", inputs, settings)
    scored = {split: run.scored(0, split) for split in ("validation", "test")}
    retrieved = {split: run.retrieved(one) for split, one in scored.items()}
    subject = Subject(0, Path(), Path(), {}, scored, retrieved)
    models = places(inputs["models"], kind="model", by=("model", "seed"))
    return TrainedLMs.of(subject, run, TRAINED, models)


def test_each_is_compared_with_the_control_and_its_knn_lm(inputs):
    trained = gather(inputs)
    table = tidy(trained.rows())
    nlls = {name: scored["test"].nll for name, scored in trained.scored.items()}

    for method in LMS:
        names = {"method": method, "setting": "alone"}
        found = select(table, metric="nats_per_token_vs_control", **names)["value"].item()
        expected = (nlls[method] - nlls["control"]).mean()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        found = select(table, metric="nats_per_token_vs_control_knn_lm", **names)["value"].item()
        expected = (nlls[method] - trained.retrieved["test"].nll).mean()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    control = table[table["method"] == "control"]
    assert not control["metric"].str.endswith("_vs_control").any()


def test_knn_is_mixed_with_each_at_the_weight_that_validation_chooses(inputs):
    trained = gather(inputs)
    retrieved = trained.retrieved
    tuned = retrieved["test"].tuned.point
    for split in ("validation", "test"):  # the definition, by hand
        found, targets = retrieved[split].found, trained.subject.scored[split].targets
        weights = np.exp(-found.distances[:, : tuned.k].astype(float) / tuned.temperature)
        hits = weights * (found.values[:, : tuned.k] == targets[:, None])
        p_knn = hits.sum(1) / weights.sum(1)
        p_lm = np.exp(-trained.scored["soft_labels_of_knn_lm"][split].nll)
        nats = [-np.log((1 - x) * p_lm + x * p_knn).mean() for x in LMBDAS]
        if split == "validation":
            place = int(np.argmin(nats))

    table = tidy(trained.rows())

    names = {"method": "soft_labels_of_knn_lm", "setting": "with kNN"}
    lmbda = select(table, metric="lmbda", **names)["value"].item()
    np.testing.assert_allclose(lmbda, LMBDAS[place])
    perplexity = select(table, metric="perplexity_per_token", **names)["value"].item()
    np.testing.assert_allclose(perplexity, np.exp(nats[place]), rtol=1e-6)


def test_each_is_a_distribution_that_costs_a_second_lm(inputs):
    trained = gather(inputs)

    components = {one.method: one for one in trained.components()}

    assert list(components) == ["control", *LMS]
    plain, mixed = components["control"].cost, components["mixture_of_softmaxes"].cost
    width = MODEL["width"]
    assert mixed.bytes - plain.bytes == 4 * (2 * width + 2 * width**2 + 2 * width)
    assert mixed.flops > plain.flops
    network = create_model(MODEL, vocabulary_size=VOCABULARY, seed=0)
    assert plain.flops == flops_of_model(network).query
    scored = trained.scored["control"]["test"]
    assert np.array_equal(components["control"].log_probs["test"], -scored.nll[None])


def test_an_lm_that_scored_other_tokens_is_an_error(inputs):
    folder = next(path for path in inputs["queries"] if path.parts[-4:] == (
        "soft", "seed0", CORPUS, "test"
    ))  # fmt: skip
    targets = np.load(folder / "targets.npy")
    save_array(folder / "targets.npy", targets + 1)

    with pytest.raises(ArtifactError):
        gather(inputs)


CONFIG, SCHEMA = with_experiments(
    yaml.safe_load((ROOT / "config.yaml").read_text()),
    yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
    read_experiments(ROOT).values(),
)
KNN = {"name": "soft_labels", "teacher": "short", "datastore": "short"}


def with_objective(**changed):
    return {"models": {"short_soft_knn": {"training": {"objective": KNN | changed}}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (with_objective(datastore="base"), "expected one of the teacher 'short', got 'base'"),
        (with_objective(teacher="base"), r"objective\.teacher: expected 'short'"),
        (
            with_objective(name="interpolated_loss", datastore=None),
            "whose p_kNN the loss mixes in, got null",
        ),
        ({"models": {"short_mixture": {"training": {"tokens": 1000}}}}, "those of the control"),
        ({"ruled_out": {"trained": {"control": "wide"}}}, "a model with a datastore of its name"),
        (
            {"datastores": {"tenth": {"extends": "short", "share": 0.1}}}
            | with_objective(datastore="tenth"),
            "with a share of 0.1",
        ),
    ],
)
def test_settings_that_cannot_be_compared_are_an_error_before_any_job(changes, message):
    check(resolve(CONFIG, {}, SCHEMA))
    settings = resolve(deep_merge(CONFIG, changes), changes, SCHEMA)

    with pytest.raises(SettingsError, match=message):
        check(settings)
