"""The models that leave out an MLP, their trainings on equal terms, and how they are compared."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from folder_checks import check_folders_are_known_by_their_manifests
from lm_artifacts import END_OF_DOCUMENT, MODEL, VOCABULARY, write_tokenizer, write_tokens
from scipy import stats

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table, select, write_table
from knnlm.experiments.mlp_hurdle import training
from knnlm.experiments.mlp_hurdle.figure import draw
from knnlm.experiments.mlp_hurdle.names import (
    FULL,
    KIND,
    LIKELIHOOD,
    LOSS,
    MATCHED,
    VARIANTS,
    WITHOUT_LAST,
    WITHOUT_MIDDLE,
)
from knnlm.experiments.mlp_hurdle.table import Curves, evaluate
from knnlm.experiments.mlp_hurdle.tasks import (
    answer_log_probs,
    macondo_task,
    read_sentences,
    text_task,
)
from knnlm.experiments.mlp_hurdle.training import train_variants
from knnlm.experiments.mlp_hurdle.variants import count_parameters, create_variant, variant_of
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, write_manifest
from knnlm.runtime.making import Target
from knnlm.text.macondo.dataset import build_macondo, read_examples
from knnlm.text.tokenizer import END_OF_DOCUMENT as END
from knnlm.text.tokenizer import save_tokenizer, train_tokenizer

SHAPE = {key: MODEL[key] for key in ("width", "heads", "ffn_width", "activation")} | {
    "layers": 3,
    "context": 40,
    "tied_embeddings": True,
    "dropout": {"residual": 0.1, "attention": 0.0, "activation": 0.0},
}
GPT2_SMALL = SHAPE | {"layers": 12, "width": 768, "heads": 12, "ffn_width": 3072}
TRAINING = {
    "vocabulary": "seen",
    "updates": 6,
    "batch_size": 4,
    "optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 2, "decay_share": 1.0},
    "clip_norm": 1.0,
    "precision": "fp32",
    "every": 2,
    "save_every": 2,
}


def build_town(folder: Path, *, seed: int, villagers: int = 2) -> Path:
    settings = {
        "villagers_per_count": villagers,
        "max_children": 2,
        "names": {"source": "faker", "path": None},
        "child_names": "added",
        "tokenizer": None,
    }
    build_macondo(
        Target(folder, "f", {"town": folder.parent.name, "seed": str(seed)}),
        macondo=settings,
        tokenizer=None,
        sources=folder / "none",
        cache=folder / "none",
    )
    return folder


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return build_town(tmp_path_factory.mktemp("macondo") / "seed0", seed=0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, town):
    folder = tmp_path_factory.mktemp("tokenizer")
    made = train_tokenizer(read_examples(town)["train"].tolist(), vocabulary_size=300)
    save_tokenizer(folder, made, end_of_document=END)
    contents = {"vocabulary_size": 300, "end_of_document": made.token_to_id(END)}
    write_manifest(folder, kind="tokenizer", settings={}, made_from={}, contents=contents)
    return folder


def on_macondo(town, tokenizer, *, seed=0, shape=SHAPE):
    return macondo_task(
        town, tokenizer, settings=TRAINING, context=shape["context"], seed=seed, cache=Path("none")
    )


def run(task, output, *, seed=0):
    train_variants(Target(output, "f", {"seed": str(seed)}), task, shape=SHAPE, settings=TRAINING)
    return output


@pytest.fixture(scope="module")
def whole(town, tokenizer, tmp_path_factory):
    """Curves of a training that nothing interrupted."""
    return run(on_macondo(town, tokenizer), tmp_path_factory.mktemp("whole") / "seed0")


def test_text_is_read_in_windows_of_train_none_of_them_twice(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    tokens = write_tokens(tmp_path / "tokens", tokenizer)
    task = text_task(tokens, tokenizer, settings={"batch_size": 2}, context=8, seed=0)

    windows = [tuple(row) for n in range(6) for row in task.batch_at(n).tolist()]

    train = np.load(tokens / "train.npy").tolist()
    assert {*windows} <= {tuple(train[i : i + 9]) for i in range(len(train))}
    assert len({*windows}) == 12


def test_dropout_is_that_of_the_seed(town, tokenizer, tmp_path, monkeypatch):
    seeds = []

    def stop(module, recipe, **named):
        seeds.append(recipe.seed)
        raise InterruptedError

    monkeypatch.setattr(training, "train", stop)
    with pytest.raises(InterruptedError):
        run(on_macondo(town, tokenizer), tmp_path / "seed3", seed=3)

    assert seeds == [3]


def test_early_is_the_first_half_of_the_updates_and_no_part_has_the_point_before_them():
    steps = np.arange(5)
    curves = Curves(
        names={},
        metric=LIKELIHOOD,
        seeds=[0],
        steps=steps,
        values={variant: steps[None].astype(float) for variant in VARIANTS},
        counts=np.full(5, 7),
        parameters={},
    )

    found = {
        row["setting"]: (row["value"], row["n"])
        for row in curves.summary()
        if (row["method"], row["metric"]) == (FULL, LIKELIHOOD)
    }

    assert found == {"early": (1.5, 7), "whole": (2.5, 7), "end": (4.0, 7)}


def test_variants_leave_out_the_last_or_a_middle_mlp():
    left_out = {v: variant_of(GPT2_SMALL, v)["without_mlp"] for v in VARIANTS}

    assert left_out == {FULL: [], WITHOUT_LAST: [11], WITHOUT_MIDDLE: [5], MATCHED: [11]}


def test_the_middle_mlp_of_two_layers_is_not_the_last():
    assert variant_of(SHAPE | {"layers": 2}, WITHOUT_MIDDLE)["without_mlp"] == [0]


def test_a_single_layer_has_no_control_and_is_refused():
    with pytest.raises(ValueError, match="at least 2 layers, got 1"):
        variant_of(SHAPE | {"layers": 1}, FULL)


@pytest.mark.parametrize("shape", [SHAPE, SHAPE | {"layers": 2}, GPT2_SMALL])
def test_wider_mlps_make_up_for_the_parameters_of_the_missing_one(shape):
    full, matched = (count_parameters(shape, v, vocabulary_size=50) for v in (FULL, MATCHED))

    assert matched == pytest.approx(full, rel=0.01)
    assert count_parameters(shape, WITHOUT_LAST, vocabulary_size=50) < 0.99 * full


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_counted_as_the_model_has_them(variant):
    model = create_variant(SHAPE, variant, vocabulary_size=50, seed=0)

    expected = sum(p.numel() for p in model.parameters())
    assert count_parameters(SHAPE, variant, vocabulary_size=50) == expected


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_variants_of_a_seed_start_with_the_same_weights_where_shapes_agree(variant):
    full = create_variant(SHAPE, FULL, vocabulary_size=50, seed=3).state_dict()
    own = create_variant(SHAPE, variant, vocabulary_size=50, seed=3).state_dict()

    shared = [name for name in own if name in full and own[name].shape == full[name].shape]
    assert {name for name in own if "attn" in name or "wte" in name} <= set(shared)
    assert all(torch.equal(own[name], full[name]) for name in shared)


def test_only_the_tokens_of_the_sentences_are_kept_each_with_a_number_of_its_own(town, tokenizer):
    whole, size = read_sentences(town, tokenizer, seen=False, cache=Path("none"))
    seen, kept = read_sentences(town, tokenizer, seen=True, cache=Path("none"))

    pairs = set(zip(whole.tokens.flat, seen.tokens.flat, strict=True))
    assert kept == len(np.unique(whole.tokens)) == len(pairs) < size
    assert {new for _, new in pairs} == set(range(kept))
    np.testing.assert_array_equal(seen.answers, whole.answers)


def test_the_likelihood_of_a_name_is_the_model_s_after_the_sentence_up_to_it(town, tokenizer):
    texts, vocabulary = read_sentences(town, tokenizer, seen=True, cache=Path("none"))
    model = create_variant(SHAPE, WITHOUT_LAST, vocabulary_size=vocabulary, seed=0)

    actual = answer_log_probs(model, texts)

    expected = []
    for tokens, place in zip(torch.from_numpy(texts.tokens), texts.answers, strict=True):
        logits = model(input_ids=tokens[None, :place]).logits[0, -1]
        expected.append(logits.double().log_softmax(dim=0)[tokens[place]].item())
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_all_variants_of_a_seed_read_the_same_batches(town, tokenizer, tmp_path):
    task, read = on_macondo(town, tokenizer), []

    def batch_at(number):
        read.append(task.batch_at(number)["input_ids"])
        return task.batch_at(number)

    run(replace(task, batch_at=batch_at), tmp_path / "seed0")

    per_variant = [read[i * 6 : (i + 1) * 6] for i in range(len(VARIANTS))]
    assert len(read) == 6 * len(VARIANTS)
    for batches in per_variant[1:]:
        assert all(map(torch.equal, batches, per_variant[0]))


def test_the_curve_of_macondo_is_that_of_the_model_after_each_update(town, tokenizer, tmp_path):
    task, scores = on_macondo(town, tokenizer), []

    def evaluate(model):
        assert not model.training
        scores.append(task.evaluate(model))
        return scores[-1]

    folder = run(replace(task, evaluate=evaluate), tmp_path / "seed0")

    curves = [pd.read_parquet(folder / f"{variant}.parquet") for variant in VARIANTS]
    assert [list(curve["step"]) for curve in curves] == [[0, 2, 4, 6]] * len(VARIANTS)
    np.testing.assert_array_equal(pd.concat(curves)[LIKELIHOOD], scores)
    untrained = create_variant(SHAPE, FULL, vocabulary_size=task.vocabulary, seed=0)
    assert curves[0][LIKELIHOOD][0] == pytest.approx(task.evaluate(untrained))


def test_the_curve_of_text_is_the_mean_loss_of_the_updates_before_each_point(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    tokens = write_tokens(tmp_path / "tokens", tokenizer)
    task = text_task(tokens, tokenizer, settings=TRAINING, context=40, seed=0)
    losses = []

    def loss(module, batch):
        found = task.loss(module, batch)
        losses.append(found.item())
        return found

    folder = run(replace(task, loss=loss), tmp_path / "seed0")

    assert task.batch_at(0).shape == (4, 41)
    assert (task.vocabulary, END_OF_DOCUMENT) == (VOCABULARY, 0)
    curve = pd.read_parquet(folder / f"{FULL}.parquet")
    assert list(curve["step"]) == [2, 4, 6]
    np.testing.assert_allclose(curve[LOSS], np.reshape(losses[:6], (3, 2)).mean(axis=1))


@pytest.mark.parametrize("batches", [3, 9])  # in the first variant, in the second
def test_a_killed_job_goes_on_and_ends_in_the_same_bytes(town, tokenizer, whole, tmp_path, batches):
    task = on_macondo(town, tokenizer)
    left, read = [batches], []

    def until_killed(number):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return task.batch_at(number)

    with pytest.raises(KeyboardInterrupt):
        run(replace(task, batch_at=until_killed), tmp_path / "killed" / "seed0")
    assert not (tmp_path / "killed" / "seed0").exists()
    counted = replace(task, batch_at=lambda n: (read.append(n), task.batch_at(n))[1])
    again = run(counted, tmp_path / "killed" / "seed0")

    assert len(read) == 6 * len(VARIANTS) - batches + batches % 2  # a state every 2 updates
    names = [path.name for path in sorted(whole.iterdir())]
    assert names == [path.name for path in sorted(again.iterdir())]
    assert all((whole / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_tokens_of_another_tokenizer_are_refused(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", write_tokenizer(tmp_path / "one"))
    other = write_tokenizer(tmp_path / "other", name="other")

    with pytest.raises(ArtifactError, match="another tokenizer"):
        text_task(tokens, other, settings=TRAINING, context=8, seed=0)


STEPS = {LIKELIHOOD: [0, 2, 4, 6], LOSS: [2, 4, 6]}


def write_curves(folder, *, metric, scored, made_from, seed):
    """Write curves of noise; return them, for each variant."""
    rng = np.random.default_rng([seed, scored])
    folder.mkdir(parents=True)
    curves = {variant: rng.normal(size=len(STEPS[metric])) for variant in VARIANTS}
    for variant, values in curves.items():
        table = pd.DataFrame({"step": STEPS[metric], metric: values})
        table.to_parquet(folder / f"{variant}.parquet", index=False)
    sizes = {v: {"parameters": 1000 - 100 * (v == WITHOUT_LAST)} for v in VARIANTS}
    contents = {"metric": metric, "scored": scored, "variants": sizes}
    names = {"seed": str(seed)}
    write_manifest(
        folder, kind=KIND, settings={}, made_from=made_from, contents=contents, names=names
    )
    return curves


SEEDS = (0, 1, 4)
SETTINGS = {"corpus": "tales", "experiment_seeds": SEEDS}


@dataclass
class Evaluated:
    """Made-up curves by metric, for each seed and variant, their folders, and the tables."""

    values: dict
    inputs: dict
    tables: dict

    @property
    def table(self):
        return self.tables["table"]

    @property
    def curves(self):
        return self.tables["curves"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    towns = [build_town(folder / "own" / f"seed{seed}", seed=seed) for seed in SEEDS]
    origins = [{"macondo": identity(town, kind="macondo")} for town in towns]
    inputs, values = {"macondo": towns}, {}
    for name, metric, scored in (("on_macondo", LIKELIHOOD, 6), ("on_text", LOSS, 64)):
        inputs[name] = [folder / name / f"seed{seed}" for seed in SEEDS]
        values[metric] = [
            write_curves(at, metric=metric, scored=scored, made_from=origin, seed=seed)
            for at, origin, seed in zip(inputs[name], origins, SEEDS, strict=True)
        ]
    return Evaluated(values, inputs, evaluate(inputs, SETTINGS))


@pytest.mark.parametrize("metric", [LIKELIHOOD, LOSS])
@pytest.mark.parametrize(("variant", "other"), [(MATCHED, FULL), (WITHOUT_LAST, WITHOUT_MIDDLE)])
def test_differences_at_a_step_are_taken_within_seeds_with_a_t_interval(
    evaluated, metric, variant, other
):
    differences = [v[variant][-1] - v[other][-1] for v in evaluated.values[metric]]

    rows = select(evaluated.curves, metric=f"{metric}_vs_{other}", method=variant)
    rows = rows[rows["step"] == 6]

    np.testing.assert_allclose(select(rows, seed="4")["value"], differences[2])
    row = select(rows, seed="all").iloc[0]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    np.testing.assert_allclose(row["value"], np.mean(differences))
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], expected)
    assert row["n"] == 3


def test_the_early_part_is_the_first_half_of_the_updates_without_the_untrained_model(evaluated):
    rows = select(evaluated.table, metric=LIKELIHOOD, method=WITHOUT_MIDDLE, seed="1")

    curve = evaluated.values[LIKELIHOOD][1][WITHOUT_MIDDLE]  # at 0, 2, 4 and 6 updates
    found = rows.set_index("setting")["value"]
    assert found["early"] == pytest.approx(curve[1])
    assert found["whole"] == pytest.approx(curve[1:].mean())
    assert found["end"] == pytest.approx(curve[3])


def test_a_difference_over_a_part_has_the_interval_of_its_seeds(evaluated):
    means = [(v[WITHOUT_LAST] - v[FULL])[1:].mean() for v in evaluated.values[LIKELIHOOD]]

    row = select(
        evaluated.table,
        metric=f"{LIKELIHOOD}_vs_{FULL}",
        method=WITHOUT_LAST,
        setting="whole",
        seed="all",
    ).iloc[0]

    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], expected)


def test_counts_are_sentences_on_macondo_and_tokens_on_text(evaluated):
    table, curves = evaluated.table, evaluated.curves

    of_text = select(table, metric=LOSS, method=FULL, seed="0").set_index("setting")["n"]
    assert dict(of_text) == {"early": 2 * 64, "whole": 6 * 64, "end": 2 * 64}
    assert set(select(table, metric=LIKELIHOOD, seed="0")["n"]) == {6}
    assert set(select(curves, metric=LOSS, seed="0")["n"]) == {2 * 64}


def test_rows_say_what_was_read_and_how_large_the_models_are(evaluated):
    table, town = evaluated.table, evaluated.inputs["macondo"][0]

    assert set(select(table, metric=LOSS)["corpus"]) == {"tales"}
    assert set(select(table, metric=LIKELIHOOD)["corpus"]) == {"macondo"}
    ratio = select(table, metric="parameters_over_full", method=WITHOUT_LAST)["value"]
    assert set(ratio) == {0.9}
    n_children = read_examples(town)["n_children"]
    theory = select(table, method="theory")["value"].item()
    assert theory == pytest.approx(np.log(1 / n_children).mean())


def test_folders_are_known_by_their_manifests(evaluated, tmp_path):
    check_folders_are_known_by_their_manifests(
        evaluate, evaluated.inputs, SETTINGS, evaluated.tables, tmp_path
    )


def test_curves_of_another_town_are_refused(evaluated, tmp_path):
    foreign = build_town(tmp_path / "own" / "seed0", seed=0, villagers=3)

    with pytest.raises(ArtifactError, match="another macondo"):
        evaluate(
            {**evaluated.inputs, "macondo": [foreign, *evaluated.inputs["macondo"][1:]]}, SETTINGS
        )


def test_curves_of_the_other_task_are_refused(evaluated):
    swapped = {**evaluated.inputs, "on_text": evaluated.inputs["on_macondo"]}

    with pytest.raises(ArtifactError, match=f"seed0 to hold {LOSS}, got {LIKELIHOOD}"):
        evaluate(swapped, SETTINGS)


def test_the_figure_needs_the_tables_alone_and_shows_every_variant(evaluated, tmp_path):
    curves, shown = evaluated.curves, {}
    for name, rows in evaluated.tables.items():
        write_table(tmp_path / f"{name}.csv", rows)
        shown[name] = read_table(tmp_path / f"{name}.csv")

    with look():
        figure = draw(shown)
        save_figure(figure, svg=tmp_path / "a.svg", png=tmp_path / "a.png")

    _, text, _, text_below = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [5, 4, 4, 4]
    assert all(len(axes.collections) for axes in figure.axes)
    above = select(curves, metric=LOSS, method=MATCHED, seed="all")["value"]
    np.testing.assert_allclose(text.lines[3].get_ydata(), above, rtol=1e-8)
    below = select(curves, metric=f"{LOSS}_vs_{FULL}", method=MATCHED, seed="all")["value"]
    np.testing.assert_allclose(text_below.lines[2].get_ydata(), below, rtol=1e-6)


def test_a_single_seed_is_drawn_without_bands(evaluated):
    curves = evaluated.curves

    with look():
        figure = draw({**evaluated.tables, "curves": curves[curves["seed"] == "0"]})

    assert [len(axes.collections) for axes in figure.axes] == [0, 0, 0, 0]


def test_the_manifest_tells_what_each_variant_leaves_out(town, whole):
    contents = read_manifest(whole, kind=KIND)["contents"]

    assert contents["variants"][MATCHED]["without_mlp"] == [2]
    assert contents["variants"][MATCHED]["ffn_width"] > SHAPE["ffn_width"]
    assert contents["scored"] == len(read_examples(town))
