"""A seed decides order and dropout, and a setting what is in the loss."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from knnlm.experiments.shared import fine_tuning
from knnlm.experiments.shared.fine_tuning import Training
from knnlm.lm.finetuning import IGNORED, Texts
from knnlm.lm.training import Evaluation

TEXTS = Texts(np.arange(1, 41).reshape(8, 5), np.full(8, 5), np.full(8, 4))
SETTINGS = {"batch_size": 4, "positions": "plain", "epochs": 1, "save_every": 5, "warmup": 0.0}
SETTINGS |= {"optimizer": {"name": "adam", "lr": 0.1, "betas": [0.9, 0.999], "weight_decay": 0.0}}
SETTINGS |= {"clip_norm": None, "precision": "fp32"}


@pytest.fixture(scope="module")
def model():
    shape = {"vocab_size": 50, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))


def first_batch(model, **named):
    return Training(model, TEXTS, SETTINGS, **named).batches.batch(0)


def test_another_seed_is_another_order(model):
    first, second = (first_batch(model, seed=seed)["input_ids"] for seed in (0, 1))

    assert not torch.equal(first, second)


def test_answers_only_leaves_the_rest_out_of_the_loss(model):
    kept = [
        int((first_batch(model, seed=0, answers_only=only)["labels"] != IGNORED).sum())
        for only in (True, False)
    ]

    assert kept[0] == 4 < kept[1]


def test_dropout_is_that_of_the_seed(model, tmp_path, monkeypatch):
    recipes = []

    def train(module, recipe, **named):
        recipes.append(recipe)
        return [{"step": 0}]

    monkeypatch.setattr(fine_tuning, "train", train)

    Training(model, TEXTS, SETTINGS, seed=3).run(tmp_path, Evaluation(None, []), log_every=1)

    assert [recipe.seed for recipe in recipes] == [3]
