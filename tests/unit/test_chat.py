"""Conversations in a chat model's own template and in the minimal one."""

import json

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from knnlm.lm.chat import ChatTemplate, read_chat_template, score_answers, tokenize_chats
from knnlm.lm.finetuning import IGNORED, Epochs
from knnlm.lm.model import create_model
from knnlm.text.macondo.chat import CHAT_TEMPLATE, ask
from knnlm.text.tokenizer import END_OF_DOCUMENT, train_tokenizer, vocabulary_size

CHILDREN = ["Rosa", "Balthazar"]
CONVERSATIONS = [ask("Bala Lee", "Rosa"), ask("Bala Lee", "Balthazar", clause="kept a bell")]
TEXT = ["User: Who is the child of Bala Lee, the one who kept a bell? Assistant: Rosa."] * 3
CHAT_ML = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
MODEL = {
    "layers": 1, "width": 8, "heads": 2, "ffn_width": 16, "context": 96, "activation": "gelu_new",
    "tied_embeddings": True, "without_mlp": [],
    "dropout": {"residual": 0.0, "attention": 0.0, "activation": 0.0},
}  # fmt: skip


@pytest.fixture
def tokenizer():
    trained = train_tokenizer(TEXT, vocabulary_size=330)
    trained.add_special_tokens([AddedToken(t, special=True) for t in ("<|start|>", "<|end|>")])
    return trained


def chats_of(tokenizer, source=CHAT_TEMPLATE):
    return tokenize_chats(
        tokenizer, ChatTemplate(source, {}), CONVERSATIONS, CHILDREN,
        end_of_text=tokenizer.token_to_id(END_OF_DOCUMENT),
    )  # fmt: skip


def words(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("source", "begin", "end"),
    [(CHAT_TEMPLATE, END_OF_DOCUMENT, END_OF_DOCUMENT), (CHAT_ML, "<|start|>", "<|end|>")],
    ids=["minimal", "its own"],
)
def test_an_answer_is_the_name_the_full_stop_and_the_token_that_ends_it(
    tokenizer, source, begin, end
):
    chats = chats_of(tokenizer, source)

    for row, child in enumerate(CHILDREN):
        tokens, length = chats.texts.tokens[row], chats.texts.lengths[row]
        assert words(tokenizer, tokens[chats.answers[row]]).lstrip() == f"{child}.{end}"
        assert words(tokenizer, tokens[chats.names[row]]).lstrip() == child
        assert words(tokenizer, tokens[:1]) == begin
        assert words(tokenizer, tokens[:length]).count(child) == 1
        assert not chats.answers[row, length:].any()


def test_only_answers_are_in_the_loss(tokenizer):
    chats = chats_of(tokenizer)

    epochs = Epochs(
        chats.texts, batch_size=2, seed=0, positions="plain", context=96, answers_only=True
    )

    batch = epochs.batch(0)
    expected = np.where(chats.answers, chats.texts.tokens, IGNORED)
    order = epochs._order[1]
    np.testing.assert_array_equal(batch["labels"].numpy(), expected[order])


def test_scores_are_the_log_probabilities_of_the_answers_tokens(tokenizer):
    chats = chats_of(tokenizer)
    model = create_model(MODEL, vocabulary_size=vocabulary_size(tokenizer), seed=0)

    scores = score_answers(model, chats)

    for row, length in enumerate(chats.texts.lengths):
        tokens = torch.from_numpy(chats.texts.tokens[row : row + 1, :length])
        with torch.no_grad():
            log_probs = model(tokens).logits[0].double().log_softmax(-1)
        for place in range(scores.shape[1]):
            if chats.answers[row, place]:
                expected = log_probs[place - 1, tokens[0, place]].item()
                assert scores[row, place] == pytest.approx(expected, rel=1e-5)
            else:
                assert scores[row, place] == 0


def test_a_template_is_found_where_tokenizers_keep_it(tmp_path):
    assert read_chat_template(tmp_path) == ChatTemplate(CHAT_TEMPLATE, {})

    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{{ y }}"}]
    config = {"chat_template": named, "eos_token": {"content": "</s>"}, "bos_token": "<s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    assert read_chat_template(tmp_path) == ChatTemplate("{{ y }}", special)

    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    assert read_chat_template(tmp_path) == ChatTemplate("{{ bos_token }}", special)


def test_a_template_may_use_the_special_tokens():
    template = ChatTemplate("{{ bos_token }}{{ messages[0]['content'] }}", {"bos_token": "<s>"})

    assert template.render([{"role": "user", "content": "Who?"}]) == "<s>Who?"


def test_a_template_that_changes_the_question_is_refused(tokenizer):
    source = "{{ messages | length }} {{ messages[-1]['content'] }}"

    with pytest.raises(ValueError, match="expected a chat template"):
        chats_of(tokenizer, source)
