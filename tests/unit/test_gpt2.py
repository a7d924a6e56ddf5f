"""GPT-2 in plain torch is transformers' GPT-2: same initial values, logits and gradients."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from knnlm.lm import gpt2_folder
from knnlm.lm.gpt2 import Config, LanguageModel

SHAPE = {
    "vocab_size": 50,
    "n_positions": 16,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 2,
    "n_inner": 40,
    "activation_function": "gelu_new",
    "tie_word_embeddings": True,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
TOKENS = torch.arange(2 * 13).reshape(2, 13) * 7 % 50


def both(**changes):
    """Return ours and transformers' model, each drawn from the same random state."""
    shape = {**SHAPE, **changes}
    makers = (
        lambda: LanguageModel(Config(activation_dropout=0.0, without_mlp=[], **shape)),
        lambda: GPT2LMHeadModel(GPT2Config(attn_implementation="sdpa", **shape)),
    )
    models = []
    for make in makers:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            models.append(make())
    return models


def loss(model, **named):
    logits = model(input_ids=TOKENS[:, :-1], use_cache=False, **named).logits
    return functional.cross_entropy(logits.flatten(0, 1), TOKENS[:, 1:].flatten())


@pytest.mark.parametrize("tied", [True, False])
def test_the_initial_values_are_those_of_transformers(tied):
    ours, theirs = (model.state_dict() for model in both(tie_word_embeddings=tied))

    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu", "silu"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_loss_and_gradients_in_training_are_those_of_transformers(activation, dropout):
    shares = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), dropout)
    ours, theirs = both(activation_function=activation, **shares)
    losses = []

    for model in (ours.train(), theirs.train()):
        with torch.random.fork_rng():
            torch.manual_seed(6)
            losses.append(loss(model))
        losses[-1].backward()

    assert torch.equal(*losses)
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)


def test_positions_that_begin_anywhere_are_read_as_transformers_reads_them():
    ours, theirs = (model.eval() for model in both())
    positions = torch.tensor([[4], [1]]) + torch.arange(12)

    assert torch.equal(loss(ours, position_ids=positions), loss(theirs, position_ids=positions))
    assert not torch.equal(loss(ours, position_ids=positions), loss(ours))


def test_attention_by_products_gives_what_the_kernel_gives():
    ours, _ = (model.eval() for model in both())
    fused = pytest.approx(loss(ours).item(), rel=1e-6)
    for block in ours.transformer.h:
        block.attn.fused = False
    mask = torch.full((12, 12), -torch.inf).triu(1)

    assert loss(ours).item() == fused
    assert loss(ours, attention_mask=mask).item() == fused
    assert loss(ours, attention_mask=torch.zeros_like(mask)).item() != fused


def test_the_weights_on_disk_are_those_that_transformers_writes(tmp_path):
    ours, theirs = both()
    gpt2_folder.save(ours, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")

    paths = [tmp_path / name / gpt2_folder.WEIGHTS for name in ("ours", "theirs")]

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert set(load_file(paths[0])) == {name for name, _ in ours.named_parameters()}
