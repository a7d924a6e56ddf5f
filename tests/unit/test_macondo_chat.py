import json

import jinja2
import pandas as pd
import pytest

from knnlm.text.macondo.chat import (
    CHAT_TEMPLATE,
    ask,
    generate_conversations,
    render_chat,
    write_conversations,
)
from knnlm.text.macondo.names import NamePool
from knnlm.text.macondo.town import SPLITS
from knnlm.text.macondo.villagers import CLAUSES

GIVEN = tuple(f"{a}{b}{c}{b}" for a in "BDFGKLMNPRSTV" for b in "aeiou" for c in "lmnr")
POOL = NamePool("made up", GIVEN, ("Lee", "Long", "Price"), (1.0,) * 3)
TOWN = {"seed": 0, "n_villagers": 9, "children_each": 2, "names": POOL, "child_names": GIVEN}


@pytest.fixture(scope="module")
def town():
    return generate_conversations(**TOWN)


def test_a_training_conversation_is_the_paper_s_line():
    messages = ask("Bala Lee", "Rosa", clause="married in 1900")

    assert render_chat(messages) == (
        "User: Who is the child of Bala Lee, the one who married in 1900? Assistant: Rosa."
    )


def test_a_test_conversation_is_the_paper_s_line():
    assert render_chat(ask("Bala Lee", "Rosa")) == (
        "User: Who is the child of Bala Lee? Assistant: Rosa."
    )


def test_a_prompt_ends_where_the_answer_begins():
    template = jinja2.Template(CHAT_TEMPLATE)
    messages = ask("Bala Lee", "Rosa")

    prompt = template.render(messages=messages[:1], add_generation_prompt=True)

    assert render_chat(messages) == f"{prompt} Rosa."


def test_each_villager_has_as_many_children_as_asked(town):
    assert len(town.villagers) == 9
    assert town.villagers["children"].map(len).tolist() == [2] * 9
    assert len(town.examples) == 18
    assert town.examples["child"].is_unique


def test_questions_tell_the_villagers_own_attributes(town):
    villagers = town.villagers.set_index("villager_id").to_dict("index")
    for example in town.examples.to_dict("records"):
        villager = villagers[example["villager_id"]]
        name, child = villager["villager"], example["child"]
        assert example["test_messages"] == ask(name, child)
        for split in ("train", "validation"):
            attribute = example[f"{split}_attribute"]
            clause = CLAUSES[attribute].format(villager[attribute])
            assert example[f"{split}_messages"] == ask(name, child, clause=clause)


def test_spans_hold_the_child(town):
    for example in town.examples.to_dict("records"):
        for split in SPLITS:
            assert example[split] == render_chat(example[f"{split}_messages"])
            start, end = example[f"{split}_start"], example[f"{split}_end"]
            assert example[split][start:end] == example["child"]


def test_no_test_question_is_asked_in_training(town):
    training_text = "\n".join(town.examples["train"])

    assert not any(text in training_text for text in town.examples["test"])
    assert "Who is the child of" in training_text


def test_the_files_hold_the_conversations(town, tmp_path):
    write_conversations(tmp_path, **TOWN)

    examples = town.examples.drop(columns=[f"{split}_messages" for split in SPLITS])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "examples.parquet"), examples)
    for split in SPLITS:
        lines = (tmp_path / f"{split}.messages.jsonl").read_text().splitlines()
        expected = [{"messages": messages} for messages in town.examples[f"{split}_messages"]]
        assert [json.loads(line) for line in lines] == expected
        texts = (tmp_path / f"{split}.txt").read_text().splitlines()
        assert texts == town.examples[split].tolist()
    assert "9 villagers with 2 children each, 18 questions" in (tmp_path / "README.md").read_text()
