"""Where a fine-tuning starts, on tiny checkpoints in the folder layout of Hugging Face."""

import pytest
import torch
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from knnlm.lm.starting_point import add_lora, add_names, grow_vocabulary, starting_model
from knnlm.text.tokenizer import train_tokenizer

TEXT = ["Ada Bell, who was born in 1815, is the parent of Zoe and of the child of Kim"] * 3
LORA = {"rank": 8, "alpha": 16, "dropout": 0.05}
PROJECTIONS = {
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "mistral": (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ),
}  # fmt: skip


def tiny(kind):
    """A random model of 40 tokens, width 16 and two layers."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return GPT2LMHeadModel(config).eval()
    config = MistralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def sentencepiece_like():
    """A BPE as in Mistral 7B v0.1: spaces become a mark, no pre-tokenizer cuts the text."""
    tokenizer = Tokenizer(BPE(byte_fallback=False, unk_token="<unk>"))
    marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(marks)
    trainer = BpeTrainer(
        vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=list("▁ABDEKZabcdefghiklmnoprstuwxz,1589"),
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


@pytest.mark.parametrize("make", [lambda: train_tokenizer(TEXT, vocabulary_size=280),
                                  sentencepiece_like])  # fmt: skip
def test_an_added_name_is_one_token_behind_the_same_text(make):
    tokenizer = make()
    before = tokenizer.encode("Ada Bell, is the parent of", add_special_tokens=False).ids

    grown, added = add_names(tokenizer, ["Balthazar", "Ottoline"])

    assert added == 2
    ids = [
        grown.encode(f"Ada Bell, is the parent of {name}", add_special_tokens=False).ids
        for name in ("Balthazar", "Ottoline")
    ]
    assert [i[:-1] for i in ids] == [before, before]
    assert {i[-1] for i in ids} == {tokenizer.get_vocab_size(), tokenizer.get_vocab_size() + 1}


def test_a_name_that_is_one_token_already_is_not_added():
    tokenizer = train_tokenizer(TEXT, vocabulary_size=400)

    grown, added = add_names(tokenizer, ["Zoe", "Balthazar"])

    assert added == 1
    assert grown.encode(" Zoe").ids == tokenizer.encode(" Zoe").ids


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_new_rows_lie_around_the_mean_of_the_old_ones(kind):
    model = tiny(kind)
    old = [m.weight.clone() for m in (model.get_input_embeddings(), model.get_output_embeddings())]

    grow_vocabulary(model, 640, seed=0)

    for before, module in zip(
        old, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True
    ):
        new = module.weight[40:]
        assert torch.equal(module.weight[:40], before)
        torch.testing.assert_close(new.mean(dim=0), before.mean(dim=0), atol=4e-3, rtol=0)
        assert new.std(dim=0).mean().item() == pytest.approx(
            model.config.initializer_range, rel=0.1
        )
    assert model(torch.tensor([[1, 639]])).logits.shape == (1, 2, 640)


def test_growing_leaves_the_random_state_of_the_world_alone():
    model = tiny("gpt2")
    before = torch.get_rng_state()

    grow_vocabulary(model, 50, seed=0)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_lora_trains_the_embedding_and_every_projection_and_nothing_else(kind):
    model = tiny(kind)
    frozen = {name for name, _ in model.named_parameters()}

    add_lora(model, LORA, new_tokens=[], seed=0)

    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    targets = {name.split(".lora_")[0] for name in trained}
    layers, embedding = ("transformer.h", "transformer.wte") if kind == "gpt2" else (
        "model.layers", "model.embed_tokens")  # fmt: skip
    expected = {f"{layers}.{n}.{part}" for n in (0, 1) for part in PROJECTIONS[kind]} | {embedding}
    assert targets == expected
    assert all(".lora_" in name for name in trained)
    assert not trained & frozen


def test_lora_has_the_rank_and_scale_of_the_settings():
    model = tiny("mistral")

    add_lora(model, LORA, new_tokens=[], seed=0)

    layer = model.model.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.shape == (8, 16)
    assert layer.scaling["default"] == 2.0  # alpha / rank
    assert layer.lora_dropout["default"].p == 0.05


def test_adapters_start_as_the_model_itself():
    model, tokens = tiny("mistral"), torch.tensor([[1, 5, 9]])
    before = model(tokens).logits

    add_lora(model, LORA, new_tokens=[], seed=0)

    torch.testing.assert_close(model.eval()(tokens).logits, before)


def test_rows_of_new_tokens_are_trained_in_the_head_alone():
    model = tiny("mistral")
    grow_vocabulary(model, 42, seed=0)

    add_lora(model, LORA, new_tokens=[40, 41], seed=0)

    whole = [n for n, p in model.named_parameters() if p.requires_grad and ".lora_" not in n]
    assert whole == ["lm_head.token_adapter.trainable_tokens_delta.default"]
    assert model.get_parameter(whole[0]).shape == (2, 16)


def test_new_tokens_and_lora_need_a_head_of_its_own():
    model = tiny("gpt2")
    grow_vocabulary(model, 42, seed=0)

    with pytest.raises(ValueError, match="head is its embedding; set child_names to existing"):
        add_lora(model, LORA, new_tokens=[40, 41], seed=0)


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_random_weights_of_a_shape_need_its_config_alone(kind, tmp_path):
    pretrained = tiny(kind)
    pretrained.config.save_pretrained(tmp_path)

    models = [
        starting_model(weights=None, shape=str(tmp_path), vocabulary=44, seed=seed, cache=tmp_path)
        for seed in (0, 0, 1)
    ]

    states = [model.state_dict() for model in models]
    assert {k: v.shape[1:] for k, v in states[0].items()} == {
        k: v.shape[1:] for k, v in pretrained.state_dict().items()
    }
    assert len(models[0].get_input_embeddings().weight) == 44
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_a_trained_model_keeps_its_weights(tmp_path):
    pretrained = tiny("gpt2")
    pretrained.save_pretrained(tmp_path)

    model = starting_model(weights=tmp_path, shape=None, vocabulary=40, seed=0, cache=tmp_path)

    tokens = torch.tensor([[1, 5, 9]])
    torch.testing.assert_close(model(tokens).logits, pretrained(tokens).logits)


def test_a_missing_shape_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(ValueError, match=r"name one of `models` as the shape"):
        starting_model(weights=None, shape="no/such", vocabulary=9, seed=0, cache=tmp_path)
