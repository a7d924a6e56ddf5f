"""Over-specification on tiny checkpoints: likelihoods by hand, kills, the tables, the figure."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from folder_checks import check_folders_are_known_by_their_manifests
from safetensors.numpy import load_file
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from knnlm.evidence.intervals import student_interval
from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table, select, tidy, write_table
from knnlm.experiments.overspecification import finetuning
from knnlm.experiments.overspecification.figure import draw
from knnlm.experiments.overspecification.finetuning import evaluation_points, finetune_macondo
from knnlm.experiments.overspecification.mlp import train_macondo_mlp
from knnlm.experiments.overspecification.rows import read_fine_tuned
from knnlm.experiments.overspecification.scores import read_states, score_children
from knnlm.experiments.overspecification.table import evaluate
from knnlm.experiments.shared.fine_tuning import FineTuning
from knnlm.lm.anatomy import capture
from knnlm.lm.architecture import FFN_INPUT_AFTER, FFN_INPUT_BEFORE
from knnlm.lm.finetuning import Texts
from knnlm.lm.starting_point import starting_model
from knnlm.runtime.artifacts import ArtifactError, read_manifest, verify_checksums
from knnlm.runtime.making import Target
from knnlm.text.macondo.dataset import build_macondo, read_examples
from knnlm.text.macondo.town import SPLITS
from knnlm.text.tokenizer import END_OF_DOCUMENT, save_tokenizer, train_tokenizer, vocabulary_size

ROOT = Path(__file__).parents[4]
SEEDS = (0, 1)
TOWN = {
    "villagers_per_count": 12,
    "max_children": 3,
    "names": {"source": "faker", "path": None},
    "child_names": "added",
    "tokenizer": None,
}
FINE_TUNING = {
    "town": "own",
    "init": "pretrained",
    "shape": None,
    "positions": "offset",
    "epochs": 2,
    "batch_size": 8,
    "optimizer": {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "warmup": 0.05,
    "clip_norm": 1.0,
    "precision": "fp32",
    "lora": None,
    "save_every": 5,
}
SETTINGS = {
    "compare": ["tuned", "random"],
    "points": 3,
    "early": 0.25,
    "site": FFN_INPUT_AFTER,
    "k": 64,
    "lmbda": 0.25,
    "temperature": 0.2,
    "oracle": {
        "temperatures": [0.1, 1.0],
        "lmbdas": {"low": 0.1, "high": 0.9, "count": 9},
    },
    "mlps": {
        head: {"hidden": 16, "head": head, "epochs": 1, "batch_size": 256, "lr": 1e-3}
        for head in ("random", "lm_head_frozen")
    },
}

EVALUATED = {
    "corpus": "none",
    "experiment_seeds": SEEDS,
    "overspecification": SETTINGS,
    "fine_tunings": {"tuned": FINE_TUNING, "random": {**FINE_TUNING, "init": "random"}},
}


def write_checkpoint(folder, towns, *, kind="gpt2"):
    """A pretrained model as the hub lays it out, with a tokenizer trained on the towns."""
    texts = [text for town in towns for text in read_examples(town)["train"]]
    tokenizer = train_tokenizer(texts, vocabulary_size=400)
    common = {"vocab_size": vocabulary_size(tokenizer), "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=64)
        model = GPT2LMHeadModel(config)
    else:
        config = MistralConfig(
            **common,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
        )
        model = MistralForCausalLM(config)
    model.save_pretrained(folder)
    save_tokenizer(folder, tokenizer, end_of_document=END_OF_DOCUMENT)
    return folder


def build_town(output, *, seed=0, **changed):
    build_macondo(
        Target(output, "town", {"town": output.parent.name, "seed": str(seed)}),
        macondo={**TOWN, **changed},
        tokenizer=None,
        sources=ROOT / "data" / "sources.csv",
        cache=output.parent,
    )
    return output


def finetune(output, town, checkpoint, *, seed=0, **changed):
    settings = {**FINE_TUNING, "init": str(checkpoint), **changed}
    shape = str(checkpoint) if settings["init"] == "random" else None
    finetune_macondo(
        target_of(output, seed),
        FineTuning(settings=settings, model=None, tokenizer=None, shape=shape, cache=output.parent),
        macondo=town,
        scores=SETTINGS,
    )
    return output


def replace(output, fine_tuned, *, head="random", seed=0):
    names = {"fine_tuning": output.parents[1].name, "mlp": head, "seed": str(seed)}
    train_macondo_mlp(
        Target(output, "job", names), fine_tuned=fine_tuned, mlp=SETTINGS["mlps"][head]
    )
    return output


def target_of(output, seed):
    return Target(output, "job", {"fine_tuning": output.parent.name, "seed": str(seed)})


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    return [build_town(folder / "own" / f"seed{seed}", seed=seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def checkpoint(towns, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "gpt2", towns)


@pytest.fixture(scope="module")
def runs(towns, checkpoint, tmp_path_factory):
    """Two models, two seeds each, fine-tuned and with their MLPs: the inputs of `evaluate`."""
    folder = tmp_path_factory.mktemp("runs")
    tuned, mlps = [], []
    for name in SETTINGS["compare"]:
        for seed, town in zip(SEEDS, towns, strict=True):
            init = {"init": "random"} if name == "random" else {}
            at = f"{name}/seed{seed}"
            tuned.append(finetune(folder / "tuned" / at, town, checkpoint, seed=seed, **init))
            for head in SETTINGS["mlps"]:
                output = folder / f"mlps/{name}/{head}/seed{seed}"
                mlps.append(replace(output, tuned[-1], head=head, seed=seed))
    return {"macondo": towns * len(SETTINGS["compare"]), "fine_tuned": tuned, "mlp": mlps}


@pytest.fixture(scope="module")
def tables(runs):
    return evaluate(runs, EVALUATED)


TINY_TEXTS = Texts(
    tokens=np.array([[0, 5, 6, 7, 9], [0, 5, 8, 0, 0], [0, 6, 6, 7, 0]]),
    lengths=np.array([5, 3, 4]),
    answers=np.array([4, 2, 3]),
)


def tiny_model(seed=0):
    shape = {"vocab_size": 12, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    return model.eval()


def test_a_model_without_an_opinion_gives_a_name_one_in_the_vocabulary():
    model = tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)

    states = read_states(
        model,
        TINY_TEXTS,
        keys_at=TINY_TEXTS.has_next,
        scored_at=TINY_TEXTS.before_answer,
        site=FFN_INPUT_AFTER,
    )

    np.testing.assert_allclose(states.log_probs, np.log(1 / 12))


def test_a_name_has_the_likelihood_that_the_model_gives_it_after_the_text_before_it():
    model, expected, keys = tiny_model(), [], []
    for row, length, answer in zip(
        TINY_TEXTS.tokens, TINY_TEXTS.lengths, TINY_TEXTS.answers, strict=True
    ):
        before = torch.from_numpy(row[None, :answer])
        probabilities = model(before).logits[0, -1].double().softmax(dim=0)
        expected.append(probabilities[row[answer]].log().item())
        text = torch.from_numpy(row[None, :length])
        keys.append(capture(model, text, [FFN_INPUT_AFTER])[FFN_INPUT_AFTER][0, :-1])

    states = read_states(
        model,
        TINY_TEXTS,
        keys_at=TINY_TEXTS.has_next,
        scored_at=TINY_TEXTS.before_answer,
        site=FFN_INPUT_AFTER,
    )

    np.testing.assert_allclose(states.log_probs, expected, rtol=1e-5)
    np.testing.assert_allclose(states.datastore_keys, torch.cat(keys), atol=1e-5)


def test_retrieval_weighs_every_entry_of_the_fine_tuning_set_by_its_distance():
    splits = dict.fromkeys(SPLITS, TINY_TEXTS)
    splits["test"] = Texts(np.array([[0, 6, 8], [0, 7, 3]]), np.array([3, 3]), np.array([2, 2]))

    found = score_children(
        tiny_model(), splits, site=FFN_INPUT_BEFORE, k=1024, temperatures=[0.2, 1.0]
    )

    distances = ((found["queries_test"][:, None] - found["keys"][None]) ** 2).sum(axis=2)
    validation = ((found["queries_validation"][:, None] - found["keys"][None]) ** 2).sum(axis=2)
    assert found["mean_distance"] == pytest.approx(validation.mean(), rel=1e-4)
    for column, share in enumerate([0.2, 1.0]):
        weights = np.exp(-distances / (share * validation.mean()))
        hits = (weights * (found["values"] == np.array([[8], [3]]))).sum(axis=1)
        with np.errstate(divide="ignore"):
            expected = np.log(hits / weights.sum(axis=1))
        np.testing.assert_allclose(found["knn_test"][:, column], expected, rtol=1e-3)
    assert found["knn_test"][1, 0] == -np.inf  # no sentence of the fine-tuning set has token 3


def test_a_training_sentence_finds_itself():
    splits = dict.fromkeys(SPLITS, TINY_TEXTS)

    found = score_children(tiny_model(), splits, site=FFN_INPUT_AFTER, k=1024, temperatures=[1e-4])

    # The second text begins as the first does, so two entries are its neighbors at distance 0.
    np.testing.assert_allclose(np.exp(found["knn_train"][:, 0]), [1, 1 / 2, 1])


def test_points_are_even_and_include_the_last_update():
    assert evaluation_points(3750, count=12)[::11] == [312, 3750]
    assert np.ptp(np.diff(evaluation_points(3750, count=12))) <= 1
    assert evaluation_points(2, count=12) == [1, 2]


def test_the_best_point_is_chosen_on_held_out_sentences_and_never_on_test(runs):
    for folder in runs["fine_tuned"]:
        contents = read_manifest(folder, kind="macondo_fine_tuning")["contents"]
        scores = [load_file(path) for path in sorted((folder / "points").iterdir())]
        means = [score["lm_validation"].mean() for score in scores]

        assert contents["best"] == contents["points"][int(np.argmax(means))]
        kept = load_file(folder / "best.safetensors")
        np.testing.assert_array_equal(kept["lm_test"], scores[int(np.argmax(means))]["lm_test"])


def test_the_best_point_is_that_of_validation_where_test_would_choose_another(
    towns, checkpoint, tmp_path, monkeypatch
):
    means = {"train": (-3, -2, -1), "validation": (-3, -1, -2), "test": (-1, -3, -2)}
    at = iter(range(SETTINGS["points"]))

    def score(*args, **kwargs):
        found, point = score_children(*args, **kwargs), next(at)
        return found | {f"lm_{s}": np.full(12 * 6, float(of[point])) for s, of in means.items()}

    monkeypatch.setattr(finetuning, "score_children", score)

    output = finetune(tmp_path / "tuned" / "seed0", towns[0], checkpoint)

    contents = read_manifest(output, kind="macondo_fine_tuning")["contents"]
    assert contents["best"] == contents["points"][1]
    assert set(load_file(output / "best.safetensors")["lm_test"]) == {-3.0}


def test_a_fine_tuning_reads_the_sentences_of_train(towns, checkpoint, tmp_path, monkeypatch):
    tokenized, found = finetuning._tokenized, {}

    def watched(*arguments):
        found["splits"] = tokenized(*arguments)
        return found["splits"]

    def stop(model, texts, *arguments, **named):
        found["texts"] = texts
        raise InterruptedError

    monkeypatch.setattr(finetuning, "_tokenized", watched)
    monkeypatch.setattr(finetuning, "Training", stop)
    with pytest.raises(InterruptedError):
        finetune(tmp_path / "own" / "seed0", towns[0], checkpoint)

    assert found["texts"] is found["splits"]["train"]


def test_names_that_join_the_vocabulary_are_counted(runs):
    contents = read_manifest(runs["fine_tuned"][0], kind="macondo_fine_tuning")["contents"]

    assert contents["examples"] == 12 * (1 + 2 + 3)
    assert 0 < contents["names_added"] <= contents["examples"]
    assert contents["vocabulary_size"] == 400 + contents["names_added"]


def test_the_mlp_answers_for_every_child_and_every_token_of_test(runs):
    for i, mlp in enumerate(runs["mlp"]):
        tuned = runs["fine_tuned"][i // len(SETTINGS["mlps"])]
        for point in ("early", "best", "end"):
            states, found = (load_file(f / f"{point}.safetensors") for f in (tuned, mlp))
            assert all(len(found[split]) == 12 * 6 for split in SPLITS)
            assert len(found["test_tokens"]) == len(states["test_values"])
            assert (found["test_tokens"] < 0).all()


def test_every_token_of_test_is_weighed_by_its_distance_to_the_fine_tuning_set(runs):
    found = load_file(runs["fine_tuned"][0] / "end.safetensors")
    k = round(SETTINGS["k"] * 72 / 1500)

    distances = ((found["test_keys"][:, None].astype(float) - found["keys"][None]) ** 2).sum(2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
    scale = SETTINGS["temperature"] * found["mean_distance"][0]
    weights = np.exp(-np.take_along_axis(distances, nearest, 1) / scale)
    hits = found["values"][nearest] == found["test_values"][:, None]
    with np.errstate(divide="ignore"):
        expected = np.log((weights * hits).sum(1) / weights.sum(1))

    np.testing.assert_allclose(found["knn_test_tokens"], expected, rtol=1e-3, atol=1e-5)


def test_the_w_of_an_mlp_decides_its_rows_and_each_has_its_own(tables):
    names = {"model": "tuned", "seed": "0", "split": "test", "setting": "end/all"}
    metrics = ("child_log_likelihood_vs_lm", "child_perplexity", "perplexity_per_token")

    for metric in metrics:
        found = {
            select(tables["table"], **names, method=f"mlp_lm/{head}", metric=metric)["value"].item()
            for head in SETTINGS["mlps"]
        }
        assert len(found) == len(SETTINGS["mlps"])


def test_mistral_with_lora_runs_from_a_folder(towns, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "mistral", towns, kind="mistral")

    output = finetune(
        tmp_path / "tuned" / "seed0",
        towns[0],
        checkpoint,
        lora={"rank": 8, "alpha": 16, "dropout": 0.05},
        optimizer={**FINE_TUNING["optimizer"], "lr": 1e-2},
    )

    before = load_file(checkpoint / "model.safetensors")["lm_head.weight"]
    head = load_file(output / "end.safetensors")["head"]
    np.testing.assert_allclose(head[: len(before)], before, atol=1e-6)
    added = read_manifest(output, kind="macondo_fine_tuning")["contents"]["names_added"]
    assert len(head) == len(before) + added
    early = load_file(output / "early.safetensors")["head"]
    assert not np.allclose(head[len(before) :], early[len(before) :])  # the names' rows are trained
    log = pd.read_parquet(output / "training.parquet")
    assert log["lm_train"].dropna().is_monotonic_increasing
    assert log["lm_train"].iloc[-1] > log["lm_train"].dropna().iloc[0] + 0.1


def test_names_that_are_tokens_already_join_no_vocabulary(towns, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "gpt2", towns)
    texts = [f"of {name} and" for name in read_examples(towns[0])["child"]] * 20
    wide = train_tokenizer([*read_examples(towns[0])["train"], *texts], vocabulary_size=3000)
    save_tokenizer(checkpoint, wide, end_of_document=END_OF_DOCUMENT)
    town = build_town(
        tmp_path / "town",
        child_names="existing",
        tokenizer=str(checkpoint),
        villagers_per_count=2,
    )

    output = finetune(tmp_path / "tuned", town, checkpoint)

    assert read_manifest(output, kind="macondo_fine_tuning")["contents"]["names_added"] == 0


def test_a_model_out_of_reach_is_an_error_with_a_remedy(towns, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = time.monotonic()

    with pytest.raises(ValueError, match=r"cannot fetch model no/such-model .*a local folder"):
        finetune(tmp_path / "tuned", towns[0], "no/such-model")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set; unset it to fetch the model"):
        starting_model(weights="mistralai/none", shape=None, vocabulary=9, seed=0, cache=tmp_path)

    assert time.monotonic() - before < 5


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def die(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("scored", [1, 3], ids=["in the middle", "before the manifest"])
def test_a_fine_tuning_that_was_interrupted_goes_on_to_the_same_bytes(
    runs, checkpoint, tmp_path, monkeypatch, caplog, scored
):
    output, calls = tmp_path / "tuned" / "seed0", iter(range(scored))

    def score(*args, **kwargs):
        return score_children(*args, **kwargs) if next(calls, None) is not None else die()

    with monkeypatch.context() as broken:
        broken.setattr(finetuning, "score_children", score)
        broken.setattr("knnlm.runtime.making.write_manifest", die)
        with pytest.raises(KeyboardInterrupt):
            finetune(output, runs["macondo"][0], checkpoint)
    assert not output.exists()
    caplog.set_level("INFO")
    finetune(output, runs["macondo"][0], checkpoint)

    assert ("tokens were done before" in caplog.text) == (scored == 1)
    assert files_of(output) == files_of(runs["fine_tuned"][0])
    verify_checksums(output, kind="macondo_fine_tuning")


def test_mlps_that_were_interrupted_go_on_to_the_same_bytes(runs, tmp_path, monkeypatch):
    output = tmp_path / "tuned" / "random" / "seed0"

    with monkeypatch.context() as broken:
        broken.setattr("knnlm.runtime.making.write_manifest", die)
        with pytest.raises(KeyboardInterrupt):
            replace(output, runs["fine_tuned"][0])
    monkeypatch.setattr("knnlm.experiments.overspecification.mlp.train_on_pairs", die)

    assert files_of(replace(output, runs["fine_tuned"][0])) == files_of(runs["mlp"][0])


def test_theory_is_one_in_the_number_of_children_and_chance_one_in_all(tables):
    table = tables["table"]

    for n in (1, 2, 3):
        suffix = f"always/{n} child" + "ren" * (n > 1)
        assert select(table, method="theory", setting=suffix)["value"].item() == pytest.approx(
            -np.log(n)
        )
    chance = select(table, method="chance", setting="always/all")
    assert chance["value"].item() == pytest.approx(np.log(1 / 72))
    expected = (12 * 0 + 24 * np.log(1 / 2) + 36 * np.log(1 / 3)) / 72
    theory = select(table, method="theory", setting="always/all")
    assert theory["value"].item() == pytest.approx(expected)


def test_rows_are_means_over_the_children_of_families_of_one_size(runs, tables):
    examples = read_examples(runs["macondo"][1])
    found = load_file(runs["fine_tuned"][1] / "end.safetensors")
    two = (examples["n_children"] == 2).to_numpy()
    names = {"model": "tuned", "seed": "1", "split": "test", "setting": "end/2 children"}

    lm = select(tables["table"], **names, method="lm", metric="child_log_likelihood")
    knn = select(tables["table"], **names, method="knn_lm", metric="child_log_likelihood")

    assert lm["n"].item() == 24
    assert lm["value"].item() == pytest.approx(found["lm_test"][two].mean())
    mixed = np.log(0.75 * np.exp(found["lm_test"][two]) + 0.25 * np.exp(found["knn_test"][two, 0]))
    assert knn["value"].item() == pytest.approx(mixed.mean())


@pytest.mark.parametrize("method", ["knn_lm", "mlp_lm/lm_head_frozen"])
def test_gains_are_paired_within_a_seed(tables, method):
    names = {"model": "tuned", "split": "test", "setting": "end/all"}
    values = {
        seed: [
            select(tables["table"], **names, seed=seed, method=m, metric="child_log_likelihood")[
                "value"
            ].item()
            for m in (method, "lm")
        ]
        for seed in "01"
    }
    gains = [with_it - without for with_it, without in values.values()]

    row = select(
        tables["table"], **names, seed="all", method=method, metric="child_log_likelihood_vs_lm"
    )

    assert row["value"].item() == pytest.approx(np.mean(gains))
    assert row["n"].item() == 2
    low, high = student_interval(np.array(gains))
    assert (row["ci_low"].item(), row["ci_high"].item()) == (
        pytest.approx(low),
        pytest.approx(high),
    )


def test_the_share_of_the_gap_is_the_gain_over_what_theory_leaves(tables):
    names = {"model": "tuned", "split": "test", "setting": "end/all", "seed": "0"}
    gain = select(tables["table"], **names, method="knn_lm", metric="child_log_likelihood_vs_lm")
    gap = select(tables["table"], **names, method="lm", metric="gap_to_theory")

    share = select(tables["table"], **names, method="knn_lm", metric="share_of_gap_closed")

    assert share["value"].item() == pytest.approx(gain["value"].item() / gap["value"].item())


@pytest.mark.parametrize(
    ("chosen_on", "how"),
    [("validation", "chosen on held-out sentences"), ("test", "oracle, chosen on test")],
)
def test_a_choice_is_the_best_of_its_grid_on_its_sentences_and_scored_on_test(
    runs, tables, chosen_on, how
):
    found = load_file(runs["fine_tuned"][0] / "end.safetensors")
    mixtures = {
        (temperature, lmbda): {
            split: np.logaddexp(
                np.log1p(-lmbda) + found[f"lm_{split}"],
                np.log(lmbda) + found[f"knn_{split}"][:, column],
            ).mean()
            for split in SPLITS
        }
        for column, temperature in enumerate([0.2, 0.1, 1.0])
        for lmbda in np.linspace(0.1, 0.9, 9)
    }
    best = max(mixtures, key=lambda choice: mixtures[choice][chosen_on])
    names = {"model": "tuned", "seed": "0", "split": "test", "method": "knn_lm"}

    row = select(tables["table"], **names, setting=f"end/all/{how}")

    values = dict(zip(row["metric"], row["value"], strict=True))
    assert values["child_log_likelihood"] == pytest.approx(mixtures[best]["test"])
    assert (values["temperature"], values["lmbda"]) == pytest.approx(best)
    gain = mixtures[best]["test"] - found["lm_test"].mean()
    assert values["child_log_likelihood_vs_lm"] == pytest.approx(gain)


def read_first(runs):
    mlps = dict(zip(SETTINGS["mlps"], runs["mlp"], strict=False))
    folders = (runs["fine_tuned"][0], mlps, runs["macondo"][0])
    return read_fine_tuned(*folders, names={}, settings=SETTINGS, fine_tuning=FINE_TUNING)


def test_only_the_oracle_is_chosen_on_test(runs):
    run = read_first(runs)
    # In nats above the LM at 0.2, 0.1 and 1.0 mean distances, and of the MLP.
    gains = {"validation": ([-1, 1, -2], 1), "test": ([-1, -2, 1], -1)}
    end = dict(run.kept["end"])
    for split, (knn, mlp) in gains.items():
        end[f"knn_{split}"] = end[f"lm_{split}"][:, None] + knn
        end[f"mlp_lm/random_{split}"] = end[f"lm_{split}"] + mlp

    rows = [*dataclasses.replace(run, kept={**run.kept, "end": end}).rows()]

    fixed = select(tidy(r | {"experiment": "e"} for r in rows), setting="end/all", split="test")
    gain = select(fixed, method="knn_lm", metric="child_log_likelihood_vs_lm")["value"].item()
    assert gain == pytest.approx(mixed_gain(SETTINGS["lmbda"], -1))
    chosen = {
        (row["setting"].removeprefix("end/all/"), row["method"], row["metric"]): row["value"]
        for row in rows
        if row["setting"].startswith("end/all/")
    }
    metrics = ("temperature", "lmbda", "child_log_likelihood_vs_lm")
    expected = {
        ("chosen on held-out sentences", "knn_lm"): (0.1, 0.9, -2),
        ("chosen on held-out sentences", "mlp_lm/random"): (None, 0.9, -1),
        ("oracle, chosen on test", "knn_lm"): (1.0, 0.9, 1),
        ("oracle, chosen on test", "mlp_lm/random"): (None, 0.1, -1),
    }
    for key, (temperature, lmbda, gain) in expected.items():
        values = [chosen.get((*key, metric)) for metric in metrics]
        assert values == [temperature, *map(pytest.approx, [lmbda, mixed_gain(lmbda, gain)])]


def mixed_gain(lmbda, gain):
    """Return how much likelier than the LM its mixture with something so much likelier is."""
    return np.log(1 - lmbda + lmbda * np.exp(gain))


@pytest.mark.parametrize(("child_names", "added"), [("added", 1), ("existing", 0)])
def test_a_fact_says_whether_the_children_have_added_names(runs, child_names, added):
    run = read_first(runs)
    assert run.town["child_names"] == "added"

    facts = dataclasses.replace(run, town={**run.town, "child_names": child_names}).facts()

    (row,) = [row for row in facts if row["metric"] == "child_names_added"]
    assert (row["value"], row["setting"]) == (added, "names from faker")


def test_the_table_has_the_fact_about_names_for_every_run(tables):
    rows = select(tables["table"], metric="child_names_added")

    assert set(zip(rows["model"], rows["seed"], strict=True)) >= {
        (model, seed) for model in ("tuned", "random (random weights)") for seed in "01"
    }
    assert set(rows["value"]) == {1}


def test_random_weights_are_marked_in_every_row(tables):
    models = set(tables["table"]["model"]) | set(tables["curves"]["model"])

    assert models == {"", "tuned", "random (random weights)"}


def test_the_curve_ends_where_the_table_ends(tables):
    table, curves = tables["table"], tables["curves"]
    rows = curves[
        (curves["epoch"] == 2) & (curves["n_children"] == 3) & (curves["split"] == "test")
    ]

    for row in rows.to_dict("records"):
        names = {name: row[name] for name in ("model", "method", "seed", "split", "metric")}
        value = select(table, **names, setting="end/3 children")["value"].item()
        assert row["value"] == pytest.approx(value)


def test_examples_show_a_sentence_of_each_split_for_each_attribute(runs, tables):
    sentences = tables["examples"]

    assert set(sentences["split"]) == set(SPLITS)
    assert len(sentences) == 3 * 6
    test = sentences[sentences["split"] == "test"]["sentence"]
    assert test.str.contains(", is the parent of ", regex=False).all()
    assert set(test) <= set(read_examples(runs["macondo"][0])["test"])


def test_the_figure_has_a_panel_a_model_and_the_same_bytes_each_time(tables, tmp_path):
    shown = {}
    for name in ("table", "curves"):
        write_table(tmp_path / f"{name}.csv", tables[name])
        shown[name] = read_table(tmp_path / f"{name}.csv")

    for copy in ("one", "two"):
        with look():
            figure = draw(shown)
            titles = [axes.get_title() for axes in figure.axes]
            levels = {
                float(line.get_ydata()[0])
                for line in figure.axes[0].lines
                if len(set(line.get_ydata())) == 1
            }
            save_figure(figure, svg=tmp_path / f"{copy}.svg", png=tmp_path / f"{copy}.png")

    assert titles == ["tuned", "random (random weights)"]
    assert sorted(levels) == pytest.approx([-np.log(3), -np.log(2), 0])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_figure_of_one_seed_has_lines_too(runs):
    tables = evaluate(runs, {**EVALUATED, "experiment_seeds": [0]})

    with look():
        figure = draw(tables)

    assert len(figure.axes[0].lines) == 3 * 3


def test_folders_are_known_by_their_manifests(runs, tables, tmp_path):
    check_folders_are_known_by_their_manifests(evaluate, runs, EVALUATED, tables, tmp_path)


def test_an_mlp_of_another_fine_tuning_is_refused(runs, tmp_path):
    foreign = replace(tmp_path / "tuned" / "random" / "seed0", runs["fine_tuned"][1])

    with pytest.raises(ArtifactError, match="was made from another fine_tuned"):
        evaluate({**runs, "mlp": [foreign, *runs["mlp"][1:]]}, EVALUATED)
