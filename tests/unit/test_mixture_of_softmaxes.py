"""A mixture of softmaxes is the formula of Yang et al. (2018), and serves as one softmax does."""

import numpy as np
import torch
from lm_artifacts import MODEL, VOCABULARY, write_tokenizer, write_tokens
from test_pretraining import build

from knnlm.lm.anatomy import apply_f, capture, head_weight
from knnlm.lm.likelihood import log_likelihood_in_tiles
from knnlm.lm.mixture_of_softmaxes import MixtureOfSoftmaxes
from knnlm.lm.model import create_model, load_model, save_model

MIXED = MODEL | {"softmaxes": 3}
TOKENS = torch.arange(16).reshape(2, 8) % VOCABULARY


def mixed(seed=0, scale=4.0):
    model = create_model(MIXED, vocabulary_size=VOCABULARY, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def test_the_mixture_is_the_formula_and_sums_to_one():
    layer, x = mixed().lm_head.double(), torch.randn(5, MODEL["width"]).double()
    width = MODEL["width"]

    found = layer(x).detach()

    priors = (x @ layer.prior.weight.T).softmax(-1)
    expected = torch.zeros(5, VOCABULARY).double()
    for m in range(3):
        rows = slice(m * width, (m + 1) * width)
        state = torch.tanh(x @ layer.latent.weight[rows].T + layer.latent.bias[rows])
        expected += priors[:, m : m + 1] * (state @ layer.weight.T).softmax(-1)
    torch.testing.assert_close(found.exp(), expected.detach())
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(5).double())


def test_its_log_probabilities_have_a_rank_above_the_width():
    torch.manual_seed(0)
    layer = MixtureOfSoftmaxes(4, 40, 3).double()
    x = torch.randn(60, 4).double()
    with torch.no_grad():
        layer.weight.normal_()
        plain = (x @ layer.weight.T).log_softmax(-1)
        rank = np.linalg.matrix_rank(layer(x).numpy(), tol=1e-8)

    assert np.linalg.matrix_rank(plain.numpy(), tol=1e-8) == 5  # the width, and the norm
    assert rank > 5


def test_what_is_below_the_head_is_drawn_as_without_a_mixture():
    plain = create_model(MODEL, vocabulary_size=VOCABULARY, seed=0).state_dict()
    own = create_model(MIXED, vocabulary_size=VOCABULARY, seed=0)

    for name, tensor in plain.items():
        assert torch.equal(tensor, own.state_dict()[name]), name
    assert own.lm_head.weight is own.transformer.wte.weight


def test_it_is_loaded_as_it_was_saved(tmp_path):
    model = mixed()
    save_model(model, tmp_path / "model")

    found = load_model(tmp_path / "model")

    assert torch.equal(found(TOKENS).logits, model(TOKENS).logits)
    assert head_weight(found).shape == (VOCABULARY, MODEL["width"])


def test_the_anatomy_and_the_likelihood_take_it_as_logits():
    model, site = mixed(), "output_before_layer_norm"
    stream = capture(model, TOKENS, [site])[site]
    targets = torch.arange(16) % VOCABULARY

    logits = apply_f(model, stream).flatten(0, 1)
    found = log_likelihood_in_tiles(lambda rows: logits[rows], targets, vocabulary=VOCABULARY)

    expected = model(TOKENS).logits.flatten(0, 1)[torch.arange(16), targets]
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5)


def test_it_learns(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    inputs = {"tokenizer": tokenizer, "tokens": write_tokens(tmp_path / "tokens", tokenizer)}

    model = load_model(build(inputs, tmp_path / "model", model=MIXED))

    start = create_model(MIXED, vocabulary_size=VOCABULARY, seed=0)
    for name in ("latent", "prior", "weight"):
        learned, drawn = (getattr(m.lm_head, name) for m in (model, start))
        learned, drawn = (getattr(one, "weight", one) for one in (learned, drawn))
        assert not torch.equal(learned, drawn), name
