"""Fine-tuning on short texts: what is read, in which order, and what counts in the loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from knnlm.lm.finetuning import IGNORED, Epochs, NextToken, Texts, mean_nll, recipe_of, tokenize
from knnlm.lm.schedule import learning_rate
from knnlm.text.tokenizer import END_OF_DOCUMENT, add_words, train_tokenizer

SENTENCES = ["Ada Bell, who kept a comb, is the parent of Zoe", "Bo, is the parent of Kim"]
TEXTS = Texts(
    tokens=np.array([[0, 5, 6, 7, 9], [0, 5, 8, 0, 0], [0, 6, 6, 7, 0]]),
    lengths=np.array([5, 3, 4]),
    answers=np.array([4, 2, 3]),
)


@pytest.fixture(scope="module")
def tokenizer():
    return add_words(train_tokenizer(SENTENCES, vocabulary_size=300), ["Zoe", "Kim"])


@pytest.fixture(scope="module")
def model():
    config = GPT2Config(
        vocab_size=12, n_embd=8, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).eval()


def epochs(texts=TEXTS, **changed):
    settings = {"batch_size": 2, "seed": 0, "positions": "plain", "context": 16}
    return Epochs(texts, **{**settings, **changed})


def test_a_text_begins_with_the_end_of_a_document_and_its_answer_is_one_token(tokenizer):
    starts = [sentence.rindex(" ") + 1 for sentence in SENTENCES]
    end = tokenizer.token_to_id(END_OF_DOCUMENT)

    texts = tokenize(tokenizer, SENTENCES, starts, end_of_document=end)

    for row, length, answer, sentence in zip(
        texts.tokens, texts.lengths, texts.answers, SENTENCES, strict=True
    ):
        assert row[0] == end
        assert tokenizer.decode(row[1:length].tolist()) == sentence
        assert tokenizer.decode([row[answer]]) == sentence[sentence.rindex(" ") :]
        assert (row[length:] == end).all()
    assert texts.targets.tolist() == [tokenizer.encode(" Zoe").ids[0], texts.tokens[1].max()]


def test_an_answer_that_shares_a_token_is_refused(tokenizer):
    with pytest.raises(ValueError, match="expected a token to begin at character 1 of 'Kim'"):
        tokenize(tokenizer, ["Kim"], [1], end_of_document=0)


def test_every_token_with_a_next_one_is_an_entry():
    assert TEXTS.has_next.sum() == (TEXTS.lengths - 1).sum()
    assert TEXTS.next_tokens(TEXTS.has_next).tolist() == [5, 6, 7, 9, 5, 8, 6, 6, 7]
    assert TEXTS.next_tokens(TEXTS.before_answer).tolist() == TEXTS.targets.tolist() == [9, 8, 7]


def test_every_epoch_reads_every_text_once_in_another_order():
    texts = Texts(np.arange(40)[:, None] + np.zeros(2, int), np.full(40, 2), np.ones(40, int))
    order = epochs(texts, batch_size=3)

    read = [order.batch(number)["input_ids"][:, 0].tolist() for number in range(2 * 14)]

    assert order.per_epoch == 14
    first, second = np.concatenate(read[:14]).tolist(), np.concatenate(read[14:]).tolist()
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


def test_a_batch_is_a_function_of_the_seed_and_its_number():
    one, other = epochs(positions="offset"), epochs(positions="offset")
    expected = one.batch(5)
    other.batch(0)

    actual = other.batch(5)

    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    different = epochs(positions="offset", seed=1).batch(5)
    assert not all(torch.equal(different[name], expected[name]) for name in expected)


def test_offsets_move_a_text_as_a_whole_and_leave_room_for_it():
    order = epochs(positions="offset")
    positions = [order.batch(number)["position_ids"] for number in range(200)]

    assert all((p.diff(dim=1) == 1).all() for p in positions)
    assert min(p.min() for p in positions) == 0
    assert max(p.max() for p in positions) == 15
    assert "position_ids" not in epochs().batch(0)


def test_each_text_of_a_batch_has_an_offset_of_its_own():
    texts = Texts(np.zeros((64, 5), int), np.full(64, 5), np.full(64, 4))
    order = epochs(texts, batch_size=64, positions="offset")
    offsets = np.stack([order.batch(number)["position_ids"][:, 0] for number in range(50)])

    equal = (offsets[:, :-1] == offsets[:, 1:]).mean()

    assert equal == pytest.approx(1 / 12, abs=0.02)  # from 0 to 16 - 5, independent of each other


def test_a_text_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="at most 4 tokens, the model's context, got one of 5"):
        epochs(context=4)


def test_padding_is_no_target():
    batch = epochs(batch_size=3).batch(0)

    counted = batch["labels"] != IGNORED

    assert counted.sum(dim=1).sort().values.tolist() == [3, 4, 5]
    assert torch.equal(batch["labels"][counted], batch["input_ids"][counted])


def test_the_loss_is_the_mean_over_the_tokens_of_the_texts_without_padding(model):
    losses = []
    for row, length in zip(TEXTS.tokens, TEXTS.lengths, strict=True):
        tokens = torch.from_numpy(row[None, :length])
        logits = model(tokens).logits[0, :-1]
        losses += functional.cross_entropy(logits, tokens[0, 1:], reduction="none").tolist()

    actual = mean_nll(NextToken(model), epochs(batch_size=3).batch(0))

    assert len(losses) == 9
    assert actual.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_learning_rate_warms_up_over_a_share_of_the_updates_and_decays_to_zero():
    settings = {"optimizer": {"lr": 1.0}, "warmup": 0.05, "clip_norm": 1.0, "precision": "fp32"}

    recipe = recipe_of(settings, updates=101, seed=0)
    rates = [learning_rate(s, schedule=recipe.schedule, lr=1.0, steps=101) for s in range(101)]

    assert int(np.argmax(rates)) == 5  # 5.05 updates, rounded up to 6: the last of them
    assert rates[-1] == pytest.approx(1 / 95)
    assert np.all(np.diff(rates[6:]) < 0)
