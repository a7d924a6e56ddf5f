"""Macondo-Conv on a hosted model: the plan, what is paid for, the tables."""

import json

import numpy as np
import pandas as pd
import pytest
from folder_checks import check_folders_are_known_by_their_manifests
from hosted_server import KEY, VARIABLE

from knnlm.evidence.plotting import look
from knnlm.evidence.tables import select
from knnlm.experiments.conversational_hosted.figure import draw
from knnlm.experiments.conversational_hosted.finetuning import finetune_hosted, plan_hosted
from knnlm.experiments.conversational_hosted.service import HostedError
from knnlm.experiments.conversational_hosted.table import evaluate, loss_per_epoch
from knnlm.experiments.shared.chat_names import LOSS, METHODS
from knnlm.runtime.artifacts import read_manifest, verify_checksums
from knnlm.runtime.making import Target
from knnlm.text.macondo.conversations import build_conversations, messages_path, read_conversations
from knnlm.text.tokenizer import END_OF_DOCUMENT, save_tokenizer, train_tokenizer

TOWN = {
    "villagers": 3,
    "children_each": 2,
    "names": {"source": "faker", "path": None},
    "child_names": "added",
    "after_space": False,
    "tokenizer": None,
}
SETTINGS = {
    "confirm": True,
    "base_url": "http://127.0.0.1:9/v1",
    "api_key_variable": VARIABLE,
    "model": "chatty",
    "epochs": 4,
    "tokenizer": None,
    "poll_seconds": 30,
    "top_log_probs": 2,
}


EVALUATED = {"experiment_seeds": [0, 1], "conversational_hosted": SETTINGS}


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    for seed in (0, 1):
        build_conversations(
            Target(folder / f"seed{seed}", "f" * 16, {"seed": str(seed)}), town=TOWN,
            tokenizer=None, sources=folder, cache=folder,
        )  # fmt: skip
    return [folder / "seed0", folder / "seed1"]


@pytest.fixture(scope="module")
def town(towns):
    return towns[0]


def plan_of(town, tmp_path, **changes):
    return plan_hosted(conversations=[town], seeds=[0], settings=SETTINGS | changes, cache=tmp_path)


@pytest.fixture
def plan(town, tmp_path):
    plan_of(town, tmp_path).to_csv(tmp_path / "plan.csv", index=False)
    return tmp_path / "plan.csv"


def finetune(server, town, plan, *, trained_on="train", **changes):
    output = plan.parent / trained_on / town.name
    names = {"trained_on": trained_on, "seed": town.name.removeprefix("seed")}
    finetune_hosted(
        Target(output, "f" * 16, names), plan=plan, conversations=town,
        settings=SETTINGS | {"base_url": server.url} | changes,
        states=plan.parent / "states", pause=lambda seconds: None,
    )  # fmt: skip
    return output


def finetuned(server, towns, plan):
    """Fine-tune both ways on each town; return the inputs of `evaluate`."""
    folders = [finetune(server, t, plan, trained_on=on) for on in ("train", "test") for t in towns]
    return {"conversations": towns, "fine_tuned": folders}


def test_the_plan_counts_what_would_be_sent(town, tmp_path):
    plan = plan_of(town, tmp_path)

    _, messages = read_conversations(town)
    for row, split in zip(plan.to_dict("records"), ["train", "test"], strict=True):
        parts = [part for pair in messages[split] for m in pair for part in m.values()]
        n_bytes = sum(len(part.encode()) for part in parts) + 6 * (3 + 2 * 3)
        assert (row["trained_on"], row["tokens"]) == (split, n_bytes)
        assert (row["examples"], row["trained_tokens"], row["questions"]) == (6, 4 * n_bytes, 3)
        assert row["counted_with"] == "bytes"


def test_a_plan_with_a_tokenizer_counts_less_than_the_upper_bound(town, tmp_path):
    _, messages = read_conversations(town)
    texts = [message["content"] for pair in messages["train"] for message in pair]
    save_tokenizer(
        tmp_path, train_tokenizer(texts, vocabulary_size=400), end_of_document=END_OF_DOCUMENT
    )

    bound, counted = plan_of(town, tmp_path), plan_of(town, tmp_path, tokenizer=str(tmp_path))

    assert (counted["tokens"] < bound["tokens"]).all()
    assert set(counted["counted_with"]) == {str(tmp_path)}


def test_nothing_is_sent_before_it_is_confirmed(server, town, plan):
    with pytest.raises(HostedError, match=r"12 training examples.*at most .* trained tokens"):
        finetune(server, town, plan, confirm=False)

    assert server.asked == []
    assert not (plan.parent / "train").exists()


def test_a_fine_tuning_sends_the_conversations_and_asks_each_villager_once(server, town, plan):
    folder = finetune(server, town, plan)

    verify_checksums(folder, kind="hosted_fine_tuning")
    sent = [f["content"] for f in server.files.values() if f["purpose"] == "fine-tune"]
    assert sent == [messages_path(town, split).read_bytes() for split in ("train", "test")]
    assert server.count("POST /chat/completions") == 3
    assert set(json.loads((folder / "answers.json").read_text())) == {"0", "1", "2"}
    assert len(pd.read_parquet(folder / "steps.parquet")) == 8


def test_the_reference_is_trained_on_the_test_questions_and_scored_on_nothing_else(
    server, town, plan
):
    finetune(server, town, plan, trained_on="test")

    (job,) = server.jobs.values()
    assert job["validation_file"] is None
    assert server.files[job["training_file"]]["content"] == messages_path(town, "test").read_bytes()


def test_what_is_paid_for_is_never_paid_for_again(server, town, plan):
    server.troubles["POST /chat/completions"] = [None, 400]  # one answer, then the run stops
    with pytest.raises(HostedError):
        finetune(server, town, plan)
    server.troubles.clear()

    finetune(server, town, plan)
    first = (plan.parent / "train" / "seed0" / "answers.json").read_bytes()
    finetune(server, town, plan, confirm=False)  # nothing is left to confirm

    assert (plan.parent / "train" / "seed0" / "answers.json").read_bytes() == first
    assert server.count("POST /fine_tuning/jobs") == 1
    assert server.count("POST /files") == 2
    assert server.count("POST /chat/completions") == 1 + 1 + 2


def test_another_number_of_first_tokens_asks_again_but_trains_nothing(server, town, plan):
    finetune(server, town, plan)
    with pytest.raises(HostedError, match="not confirmed"):
        finetune(server, town, plan, top_log_probs=1, confirm=False)

    folder = finetune(server, town, plan, top_log_probs=1)
    finetune(server, town, plan, confirm=False)  # the first answers are still there

    assert server.count("POST /fine_tuning/jobs") == 1
    assert server.count("POST /files") == 2
    assert server.count("POST /chat/completions") == 2 * 3
    assert read_manifest(folder, kind="hosted_fine_tuning")["settings"]["top_log_probs"] == 2


def test_other_settings_are_another_fine_tuning(server, town, plan):
    finetune(server, town, plan)

    finetune(server, town, plan, epochs=2)
    finetune(server, town, plan, poll_seconds=1)  # not a setting of what is paid for

    assert [job["hyperparameters"]["n_epochs"] for job in server.jobs.values()] == [4, 2]


def test_the_key_is_in_no_file(server, town, plan):
    finetune(server, town, plan)

    files = [path for path in plan.parent.rglob("*") if path.is_file()]
    assert any(path.parent.name == "states" for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_loss_of_an_epoch_is_that_of_the_whole_file_or_the_mean_of_batches():
    steps = pd.DataFrame(
        {
            "step": [1.0, 2.0, 3.0, 4.0],
            "train_loss": [4.0, 2.0, 1.0, 0.0],
            "valid_loss": [3.0, 1.0, 9.0, np.nan],
        }
    )

    batches = loss_per_epoch(steps, 2, "train")
    whole = loss_per_epoch(steps.assign(full_valid_loss=[np.nan, 1.5, np.nan, 2.5]), 2, "train")
    reference = loss_per_epoch(steps, 2, "test")

    np.testing.assert_allclose(batches["train"], [3.0, 0.5])
    np.testing.assert_allclose(batches["test"], [2.0, 9.0])
    np.testing.assert_allclose(whole["test"], [1.5, 2.5])
    np.testing.assert_allclose(reference["test"], [3.0, 0.5])


def test_a_name_with_and_without_a_space_has_the_sum_of_both_probabilities(server, town, plan):
    child = read_conversations(town)[0]["child"].iloc[0]
    tokens = [(child, np.log(0.5)), (f" {child}", np.log(0.25)), ("Nobody", np.log(0.125))]
    server.first_tokens = tokens

    tables = evaluate(finetuned(server, [town], plan), EVALUATED | {"experiment_seeds": [0]})

    names = {"method": METHODS["train"], "seed": "0"}
    row = select(tables["table"], **names, metric="child_log_likelihood_at_most")
    expected = (np.log(0.5 + 0.25) + 5 * np.log(0.125)) / 6
    assert row["value"].item() == pytest.approx(expected)


def test_the_tables_and_the_figure_are_those_of_a_local_model(server, towns, plan, tmp_path):
    examples, _ = read_conversations(towns[0])
    child = examples["child"].iloc[0]  # a child of the first villager
    server.first_tokens = [(child, -0.5), ("Nobody", -2.0)]
    inputs = finetuned(server, towns, plan)

    tables = evaluate(inputs, EVALUATED)
    with look():
        figure = draw(tables)

    table, curves = tables["table"], tables["curves"]
    check_folders_are_known_by_their_manifests(
        evaluate, inputs, EVALUATED, tables, tmp_path / "foreign"
    )
    line = select(curves, method=METHODS["train"], split="test", metric=LOSS, seed="0")
    # valid_loss is 2 + 1 / step, measured at every second of 8 steps
    np.testing.assert_allclose(line["value"], [2 + 1 / step for step in (2, 4, 6, 8)])
    assert line["epoch"].tolist() == [1, 2, 3, 4]
    names = {"method": METHODS["train"], "seed": "0"}
    answers = {
        metric: select(table, **names, metric=metric)["value"].item()
        for metric in ("child_among_first_tokens", "child_log_likelihood_at_most")
    }
    assert answers["child_among_first_tokens"] == pytest.approx(1 / 6)
    assert answers["child_log_likelihood_at_most"] == pytest.approx((-0.5 + 5 * -2.0) / 6)
    right = examples.groupby("villager_id")["child"].transform(lambda names: "Rosa" in set(names))
    measured = select(table, **names, metric="answer_is_a_child")["value"].item()
    assert measured == pytest.approx(right.mean())
    (axes,) = figure.axes
    assert axes.get_ylabel().startswith("loss")
