"""Embeddings of several vectors a word are one softmax whose rows add up by word."""

import numpy as np
import pytest
import torch

from knnlm.retrieval.output_embeddings import (
    OutputEmbeddings,
    embeddings_log_probs,
    embeddings_loss,
    rows_in_proportion,
)
from knnlm.retrieval.pair_training import train_on_shuffled
from knnlm.retrieval.pairs import Shard, ShuffledPairs

V, D = 7, 5
UNEVEN = np.array([1, 3, 1, 1, 4, 2, 1])
SETTINGS = {
    "epochs": 3,
    "batch_size": 32,
    "accumulation": 2,
    "optimizer": {"name": "adam", "lr": 0.05, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
    "clip_norm": None,
    "precision": "fp32",
    "save_every": 7,
}


def dense(module, keys):
    """The definition, in float64: one softmax over all rows, summed over those of each word."""
    logits = keys.double() @ module.weight.double().T
    weights = np.exp(logits.detach().numpy())
    owners = np.repeat(np.arange(V), module.counts.numpy())
    summed = np.stack([weights[:, owners == word].sum(1) for word in range(V)], axis=1)
    return summed / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("counts", [np.ones(V, int), np.full(V, 3), UNEVEN])
def test_the_probability_of_a_word_is_the_sum_over_its_rows(counts):
    module, keys = OutputEmbeddings(counts, dim=D, seed=0), 3 * torch.randn(6, D)
    expected = dense(module, keys)
    every = [np.full(len(keys), word) for word in range(V)]

    found = np.stack([embeddings_log_probs(module, keys.numpy(), word) for word in every], axis=1)
    in_fp32 = module(keys, torch.full((6,), 4))

    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(in_fp32.exp().detach(), expected[:, 4], rtol=1e-4)


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    module = OutputEmbeddings(UNEVEN, dim=D, seed=0).double()
    keys, values = torch.randn(9, D).double(), torch.arange(9) % V
    keys.float = lambda: keys  # stays in double, which finite differences need

    def loss(weight):
        return torch.func.functional_call(module, {"weight": weight}, (keys, values)).mean()

    assert torch.autograd.gradcheck(loss, module.weight)


def test_a_word_that_is_far_from_certain_has_a_finite_probability():
    module = OutputEmbeddings(np.full(V, 2), dim=D, seed=0)
    with torch.no_grad():
        module.weight.fill_(0.0)
        module.weight[0] = 200.0  # of word 0; the others are 1,000 nats below it

    found = embeddings_log_probs(module, np.ones((1, D), np.float16), np.array([3]))

    np.testing.assert_allclose(found, np.log(2) - 1000.0)
    assert torch.isfinite(module(torch.ones(1, D), torch.tensor([3])))


def test_rows_follow_their_shares_and_are_as_many_as_even_ones():
    rows = rows_in_proportion(np.array([6.0, 3.0, 1.0, 0.0]), vectors=3)

    assert rows.tolist() == [1 + 5, 1 + 2, 1 + 1, 1]  # 8 more: 4.8, 2.4, 0.8 and 0
    assert rows_in_proportion(np.ones(V), vectors=1).tolist() == [1] * V
    assert rows_in_proportion(np.arange(V), vectors=5).sum() == 5 * V


def test_a_word_without_a_row_is_an_error():
    with pytest.raises(ValueError, match="at least one row for each word"):
        OutputEmbeddings(np.array([1, 0, 2]), dim=D, seed=0)


def test_training_learns_what_keys_tell(tmp_path):
    generator = np.random.default_rng(0)
    keys = generator.standard_normal((800, D)).astype(np.float16)
    values = np.argmax(np.abs(keys), axis=1)  # two directions a word: one vector cannot have them
    learned = {}
    for vectors in (1, 2):
        module = OutputEmbeddings(np.full(V, vectors), dim=D, seed=0)
        train_on_shuffled(
            module,
            ShuffledPairs([Shard(0, keys, values)], buffer_mib=1, seed=0),
            loss=embeddings_loss,
            vocabulary_size=V,
            settings=SETTINGS | {"epochs": 12},
            seed=0,
            partial=tmp_path / str(vectors),
        )
        learned[vectors] = embeddings_log_probs(module, keys, values).mean()

    assert learned[2] > learned[1] + 0.3


def test_values_of_another_tokenizer_are_an_error(tmp_path):
    shard = Shard(0, np.ones((40, D), np.float16), np.full(40, V))

    with pytest.raises(ValueError, match="made with another tokenizer"):
        train_on_shuffled(
            OutputEmbeddings(np.ones(V, int), dim=D, seed=0),
            ShuffledPairs([shard], buffer_mib=1, seed=0),
            loss=embeddings_loss,
            vocabulary_size=V,
            settings=SETTINGS,
            seed=0,
            partial=tmp_path,
        )
