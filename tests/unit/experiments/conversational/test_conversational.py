"""Macondo-Conv on tiny models: the fine-tuning, interruptions, the tables, the figure."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from folder_checks import check_folders_are_known_by_their_manifests
from safetensors.numpy import load_file
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from knnlm.evidence.intervals import student_interval
from knnlm.evidence.plotting import look
from knnlm.evidence.tables import select
from knnlm.experiments.conversational import finetuning
from knnlm.experiments.conversational.figure import draw
from knnlm.experiments.conversational.finetuning import finetune_conversational
from knnlm.experiments.conversational.table import (
    KIND,
    FineTunedChat,
    _curves,
    _references,
    evaluate,
)
from knnlm.experiments.shared.chat_names import LOSS, METHODS, NAME
from knnlm.experiments.shared.fine_tuning import FineTuning
from knnlm.runtime.artifacts import ArtifactError, verify_checksums
from knnlm.runtime.making import Target
from knnlm.text.macondo.conversations import build_conversations, messages_path, read_conversations
from knnlm.text.macondo.town import SPLITS
from knnlm.text.tokenizer import END_OF_DOCUMENT, save_tokenizer, train_tokenizer, vocabulary_size

TOWN = {
    "villagers": 6,
    "children_each": 2,
    "names": {"source": "faker", "path": None},
    "child_names": "added",
    "after_space": True,
    "tokenizer": None,
}
SHAPE = {
    "layers": 1, "width": 16, "heads": 2, "ffn_width": 16, "context": 96, "activation": "gelu_new",
    "tied_embeddings": True, "without_mlp": [],
    "dropout": {"residual": 0.1, "attention": 0.0, "activation": 0.0},
}  # fmt: skip
FINE_TUNING = {
    "init": "random",
    "shape": "tiny",
    "positions": "offset",
    "epochs": 3,
    "batch_size": 5,
    "optimizer": {"name": "adam", "lr": 1e-2, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "warmup": 0.05,
    "clip_norm": 1.0,
    "precision": "fp32",
    "lora": None,
    "save_every": 2,
}
TRAINED, REFERENCE = METHODS["train"], METHODS["test"]


EVALUATED = {
    "corpus": "made up",
    "experiment_seeds": [0, 1],
    "conversational": {"compare": ["tiny"]},
    "fine_tunings": {"tiny": FINE_TUNING},
}


def build(folder, seed, **changes):
    build_conversations(
        Target(folder, "f" * 16, {"seed": str(seed)}), town=TOWN | changes, tokenizer=None,
        sources=folder, cache=folder,
    )  # fmt: skip
    return folder


def finetune(output, town, folder, **changes):
    """Fine-tune from random weights of SHAPE, or from the model in changes["init"]."""
    ours = "init" not in changes
    finetune_conversational(
        Target(output, "f" * 16, {"fine_tuning": "tiny", "seed": output.name.removeprefix("seed")}),
        FineTuning(
            settings=FINE_TUNING | changes,
            model=None,
            tokenizer=folder / "tokenizer" if ours else None,
            shape=SHAPE if ours else None,
            cache=folder,
        ),
        conversations=town,
        trained_tokens="all" if ours else "answers",
    )
    return output


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    towns = [build(folder / f"seed{seed}", seed) for seed in (0, 1)]
    texts = read_conversations(towns[0])[0]["train"].tolist()
    (folder / "tokenizer").mkdir()
    save_tokenizer(
        folder / "tokenizer", train_tokenizer(texts, vocabulary_size=400),
        end_of_document=END_OF_DOCUMENT,
    )  # fmt: skip
    return towns


@pytest.fixture(scope="module")
def runs(towns, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [finetune(folder / "tiny" / town.name, town, town.parent) for town in towns]


@pytest.fixture(scope="module")
def tables(towns, runs):
    return evaluate({"conversations": towns, "fine_tuned": runs}, EVALUATED)


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def value(table, **names):
    return select(table, **names)["value"].item()


def test_the_artifact_holds_the_conversations(towns):
    examples, messages = read_conversations(towns[0])

    assert len(examples) == 12
    for split in SPLITS:
        said = [answer["content"] for _, answer in messages[split]]
        assert said == [f"{child}." for child in examples["child"]]
        first = json.loads(messages_path(towns[0], split).read_text().splitlines()[0])
        assert first == {"messages": messages[split][0]}


def test_existing_names_are_one_token_where_the_answer_begins(tmp_path):
    names = ["Rosa", "Kim", "Ada", "Leo"]
    # Only these are tokens at the beginning of a text; behind a space they are not.
    tokenizer = train_tokenizer([f"{name}\n" for name in names] * 9, vocabulary_size=280)
    save_tokenizer(tmp_path, tokenizer, end_of_document=END_OF_DOCUMENT)
    few = {"villagers": 2, "child_names": "existing", "tokenizer": str(tmp_path)}

    build(tmp_path / "town", 0, **few, after_space=False)

    children = read_conversations(tmp_path / "town")[0]["child"]
    assert all(len(tokenizer.encode(child)) == 1 for child in children)
    with pytest.raises(ValueError, match="single token"):
        build(tmp_path / "other", 0, **few, after_space=True)


def test_training_on_a_split_makes_its_answers_likelier(runs):
    for trained_on in ("train", "test"):
        first, last = (
            load_file(runs[0] / trained_on / "epochs" / f"000{epoch}.safetensors")
            for epoch in (0, 3)
        )
        gain = last[f"answer_{trained_on}"] - first[f"answer_{trained_on}"]
        assert gain.mean() > 1
    reference = load_file(runs[0] / "test" / "epochs" / "0003.safetensors")
    assert set(reference) == {"answer_test", "name_test", "tokens_test"}


def test_the_reference_learns_the_questions_of_test(towns, tmp_path, monkeypatch):
    lengths = []

    class Watched(finetuning.Training):
        def __init__(self, model, texts, *arguments, **named):
            lengths.append(texts.lengths.mean())
            super().__init__(model, texts, *arguments, **named)

    monkeypatch.setattr(finetuning, "Training", Watched)
    finetune(tmp_path / "seed0", towns[0], towns[0].parent, epochs=1)

    over_specified, bare = lengths
    assert bare < over_specified


def test_another_seed_is_another_model(towns, runs, tmp_path):
    other = finetune(tmp_path / "seed1", towns[0], towns[0].parent, epochs=1)

    first, second = (
        load_file(run / "train/epochs/0000.safetensors")["name_test"] for run in (runs[0], other)
    )
    assert not np.array_equal(first, second)


def test_added_names_are_one_token_of_an_answer_of_three(runs):
    scores = load_file(runs[0] / "train" / "epochs" / "0000.safetensors")

    assert set(scores["tokens_test"]) == {3.0}
    assert (scores["answer_test"] < 2 * scores["name_test"]).all()  # of two more tokens
    facts = json.loads((runs[0] / "facts.json").read_text())
    assert facts["names_added"] == 12
    assert facts["own_template"] == 0


@pytest.mark.parametrize("calls", [3, 6])
def test_an_interrupted_fine_tuning_goes_on_to_the_same_bytes(
    towns, runs, tmp_path, monkeypatch, calls
):
    score = finetuning.score_splits
    left = iter(range(calls))

    def interrupted(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(finetuning, "score_splits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "tiny" / "seed0", towns[0], towns[0].parent)
    monkeypatch.undo()

    finetune(tmp_path / "tiny" / "seed0", towns[0], towns[0].parent)

    assert contents(tmp_path / "tiny" / "seed0") == contents(runs[0])
    verify_checksums(tmp_path / "tiny" / "seed0", kind=KIND)


def test_a_chat_model_from_a_folder_is_tuned_in_its_own_template_with_adapters(towns, tmp_path):
    texts = read_conversations(towns[0])[0]["train"].tolist()
    tokenizer = train_tokenizer(texts, vocabulary_size=400)
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    model = tmp_path / "chatty"
    config = LlamaConfig(
        vocab_size=vocabulary_size(tokenizer), hidden_size=16, intermediate_size=24,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(model)
    save_tokenizer(model, tokenizer, end_of_document=END_OF_DOCUMENT)
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}<|end|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|end|>{% endif %}"
    )
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0}

    run = finetune(
        tmp_path / "tiny" / "seed0",
        towns[0],
        tmp_path,
        init=str(model),
        lora=lora,
        positions="plain",
    )

    facts = json.loads((run / "facts.json").read_text())
    assert facts["own_template"] == 1
    first, last = (
        load_file(run / "train" / "epochs" / f"000{epoch}.safetensors") for epoch in (0, 3)
    )
    assert last["answer_train"].mean() > first["answer_train"].mean()


def test_the_loss_is_per_token_of_the_answer_and_the_name_stands_alone(runs, tables):
    table = tables["table"]

    scores = load_file(runs[1] / "train" / "epochs" / "0003.safetensors")
    names = {"method": TRAINED, "setting": "end", "seed": "1", "split": "test"}
    loss = -scores["answer_test"].sum() / scores["tokens_test"].sum()
    assert value(table, **names, metric=LOSS) == pytest.approx(loss)
    name = scores["name_test"].mean()
    assert value(table, **names, metric=NAME) == pytest.approx(name)
    gap = value(table, **names, metric=f"{NAME}_vs_theory")
    assert gap == pytest.approx(name - np.log(1 / 2))


def test_a_perfect_model_pays_for_the_name_alone(tables):
    table = tables["table"]

    names = {"method": "theory", "seed": "0"}
    assert value(table, **names, metric=NAME) == pytest.approx(np.log(1 / 2))
    assert value(table, **names, metric=LOSS) == pytest.approx(np.log(2) / 3)
    assert value(table, method="chance", seed="0") == pytest.approx(np.log(1 / 12))


def test_long_answers_weigh_more_than_short_ones():
    scores = {"answer_test": np.array([-1.0, -5.0]), "tokens_test": np.array([2.0, 4.0])}
    scores |= {"name_test": np.array([-1.0, -2.0])}
    epochs = {"train": [], "test": [scores]}
    examples = pd.DataFrame({"n_children": [1, 4]})
    chat = FineTunedChat({"seed": 0}, examples, facts={}, epochs=epochs)
    untrained = dataclasses.replace(chat, epochs={"train": [scores]})

    (loss,) = (row["value"] for row in _curves({}, [chat]) if row["metric"] == LOSS)
    theory = next(row["value"] for row in _references(untrained) if row["metric"] == LOSS)

    assert loss == pytest.approx(6 / 6)
    assert theory == pytest.approx(np.log(4) / 6)


def test_the_reference_is_compared_within_each_seed(runs, tables):
    table = tables["table"]

    differences = []
    for run in runs:
        ends = [load_file(run / on / "epochs" / "0003.safetensors") for on in ("train", "test")]
        differences.append((ends[0]["name_test"] - ends[1]["name_test"]).mean())
    row = select(table, seed="all", setting="end", metric=f"{NAME}_vs_reference").iloc[0]
    assert row["value"] == pytest.approx(np.mean(differences))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(student_interval(differences))


def test_the_best_epoch_is_chosen_on_held_out_questions(runs, tables):
    table = tables["table"]

    for seed, run in enumerate(runs):
        held_out = [
            load_file(run / "train" / "epochs" / f"000{epoch}.safetensors")["answer_validation"]
            for epoch in range(4)
        ]
        best = int(np.argmax([scores.mean() for scores in held_out]))
        assert value(table, metric="best_epoch", seed=str(seed)) == best
        scores = load_file(run / "train" / "epochs" / f"000{best}.safetensors")
        row = {"setting": "best", "split": "test", "metric": NAME, "seed": str(seed)}
        assert value(table, **row) == pytest.approx(scores["name_test"].mean())


def test_the_best_epoch_is_validation_s_where_others_would_choose_another():
    means = {"train": (-3, -2, -1, 0), "validation": (-3, -1, -2, -3), "test": (-3, -2, 0, -1)}
    epochs = [
        {f"answer_{split}": np.full(2, of_split[epoch]) for split, of_split in means.items()}
        for epoch in range(4)
    ]

    chat = FineTunedChat({}, examples=None, facts={}, epochs={"train": epochs, "test": epochs})

    assert chat.best == 1


def test_curves_have_every_epoch_of_both_trainings(tables):
    curves, examples = tables["curves"], tables["examples"]

    for method, splits in ((TRAINED, SPLITS), (REFERENCE, ["test"])):
        for split in splits:
            line = select(curves, method=method, split=split, metric=LOSS, seed="all")
            assert line["epoch"].tolist() == [0, 1, 2, 3]
    assert list(examples.columns) == ["split", "attribute", "conversation"]
    assert examples["conversation"].str.startswith("User: Who is the child of ").all()


def test_folders_are_known_by_their_manifests(towns, runs, tables, tmp_path):
    inputs = {"conversations": towns, "fine_tuned": runs}

    check_folders_are_known_by_their_manifests(evaluate, inputs, EVALUATED, tables, tmp_path)


def test_a_run_on_another_town_is_refused(towns, runs, tmp_path):
    other = build(tmp_path / "seed1", 1, villagers=7)

    with pytest.raises(ArtifactError, match="another conversations"):
        evaluate({"conversations": [towns[0], other], "fine_tuned": runs}, EVALUATED)


def test_the_figure_has_the_reference_and_the_level_of_a_perfect_model(tables):
    table, curves = tables["table"], tables["curves"]

    with look():
        figure = draw(tables)

    loss, name = figure.axes
    for axes, metric in ((loss, LOSS), (name, NAME)):
        levels = [line.get_ydata()[0] for line in axes.get_lines() if len(line.get_ydata()) == 2]
        perfect = value(table, method="theory", metric=metric, seed="all")
        last = select(curves, method=REFERENCE, metric=metric, seed="all").iloc[-1]
        assert levels == pytest.approx([last["value"], perfect])
