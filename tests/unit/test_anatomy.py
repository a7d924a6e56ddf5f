"""Every site and both maps agree with the model's own forward pass, for each architecture."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from knnlm.lm.anatomy import (
    SITES,
    apply_f,
    apply_g,
    capture,
    context,
    final_norm,
    head_weight,
    width,
)

VOCABULARY, WIDTH, CONTEXT = 40, 16, 24
TOKENS = torch.arange(2 * CONTEXT).reshape(2, CONTEXT) * 7 % VOCABULARY
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.3,  # large, so that no part is close to doing nothing
}
LLAMA = {**SHAPE, "num_key_value_heads": 2, "intermediate_size": 32}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SHAPE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=8)),
}


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = MODELS[request.param]().eval()
        for name, parameter in built.named_parameters():
            if "norm" in name or "ln_" in name:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return built


@pytest.fixture(scope="module")
def reference(model):
    """The states by the book: layer inputs from transformers, the rest from the parts by name."""
    with torch.no_grad():
        output = model(TOKENS, output_hidden_states=True)
        block_input = output.hidden_states[-2]
        if model.config.model_type == "gpt2":
            block = model.transformer.h[-1]
            attention_norm, mlp_norm, norm = block.ln_1, block.ln_2, model.transformer.ln_f
            attended = block.attn(attention_norm(block_input))[0]
        else:
            block = model.model.layers[-1]
            attention_norm, mlp_norm = block.input_layernorm, block.post_attention_layernorm
            norm = model.model.norm
            attended = attention_output(model, block.self_attn)
        residual = block_input + attended
        stream = residual + block.mlp(mlp_norm(residual))
        sites = {
            "attention_input_before_layer_norm": block_input,
            "attention_input_after_layer_norm": attention_norm(block_input),
            "ffn_input_before_layer_norm": residual,
            "ffn_input_after_layer_norm": mlp_norm(residual),
            "output_before_layer_norm": stream,
            "output_after_layer_norm": norm(stream),
        }
    return sites, output


def attention_output(model, attention):
    caught = []
    hook = attention.register_forward_hook(lambda module, inputs, output: caught.append(output[0]))
    model(TOKENS)
    hook.remove()
    return caught[0]


def test_every_site_is_the_state_it_is_named_for(model, reference):
    expected, _ = reference

    actual = capture(model, TOKENS, SITES)

    assert set(actual) == set(expected)
    for site, state in expected.items():
        torch.testing.assert_close(actual[site], state, rtol=1e-5, atol=1e-5)


def test_each_site_alone_is_the_same_as_all_together(model):
    together = capture(model, TOKENS, SITES)

    for site in SITES:
        assert torch.equal(capture(model, TOKENS, [site])[site], together[site])


def test_the_normed_output_is_what_transformers_returns(model, reference):
    _, output = reference

    state = capture(model, TOKENS, ["output_after_layer_norm"])["output_after_layer_norm"]

    torch.testing.assert_close(state, output.hidden_states[-1])


def test_the_residual_stream_through_g_and_f_gives_the_models_own_logits(model, reference):
    _, output = reference
    residual = capture(model, TOKENS, ["ffn_input_before_layer_norm"])[
        "ffn_input_before_layer_norm"
    ]

    with torch.no_grad():
        logits = apply_f(model, apply_g(model, residual))

    torch.testing.assert_close(logits, output.logits)


def test_the_normed_output_times_the_head_weight_gives_the_models_own_logits(model, reference):
    _, output = reference
    stream = capture(model, TOKENS, ["output_before_layer_norm"])["output_before_layer_norm"]

    with torch.no_grad():
        logits = final_norm(model)(stream) @ head_weight(model).T

    assert head_weight(model).shape == (VOCABULARY, WIDTH)
    torch.testing.assert_close(logits, output.logits)


def test_the_key_alone_does_not_give_the_logits(model, reference):
    _, output = reference
    key = capture(model, TOKENS, ["ffn_input_after_layer_norm"])["ffn_input_after_layer_norm"]

    with torch.no_grad():
        logits = apply_f(model, apply_g(model, key))

    assert (logits - output.logits).abs().max() > 0.1


@pytest.mark.parametrize(
    ("site", "n_norms", "n_mlps"),
    [
        ("attention_input_before_layer_norm", 4, 2),
        ("attention_input_after_layer_norm", 5, 2),
        ("ffn_input_before_layer_norm", 5, 2),
        ("ffn_input_after_layer_norm", 6, 2),
        ("output_before_layer_norm", 6, 3),
        ("output_after_layer_norm", 7, 3),
    ],
)
def test_nothing_behind_the_last_site_is_computed(model, site, n_norms, n_mlps):
    ran = {"norm": 0, "mlp": 0, "head": 0}
    hooks = []
    for name, module in model.named_modules():
        last = name.split(".")[-1]
        kind = {"mlp": "mlp", "lm_head": "head"}.get(last)
        kind = "norm" if last.startswith("ln_") or last.endswith("norm") else kind
        if kind:
            hooks.append(module.register_forward_hook(count(ran, kind)))

    capture(model, TOKENS, [site])

    for hook in hooks:
        hook.remove()
    assert ran == {"norm": n_norms, "mlp": n_mlps, "head": 0}


def count(ran, kind):
    def hook(module, inputs, output):
        ran[kind] += 1

    return hook


def count_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_capturing_leaves_no_hooks_and_no_gradients(model):
    before = count_hooks(model)  # transformers keeps some of its own

    state = capture(model, TOKENS, ["ffn_input_after_layer_norm"])["ffn_input_after_layer_norm"]

    assert not state.requires_grad
    assert count_hooks(model) == before
    assert model(TOKENS).logits.shape == (2, CONTEXT, VOCABULARY)


def test_width_and_context_are_read_from_the_config(model):
    assert (width(model), context(model)) == (WIDTH, CONTEXT)


def test_an_unknown_site_is_refused_with_the_known_ones(model):
    with pytest.raises(ValueError, match=r"unknown site ffn_output; expected one of attention_in"):
        capture(model, TOKENS, ["ffn_output"])


def test_no_site_at_all_is_refused(model):
    with pytest.raises(ValueError, match="at least one site"):
        capture(model, TOKENS, [])


def test_an_architecture_outside_the_table_is_refused():
    config = OPTConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, ffn_dim=8
    )

    with pytest.raises(ValueError, match="of type gpt2, llama, mistral, got opt"):
        capture(OPTForCausalLM(config), TOKENS, ["ffn_input_after_layer_norm"])
