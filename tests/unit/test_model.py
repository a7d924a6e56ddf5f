"""Models are built, saved and loaded without change; bad names and blocks are refused."""

import time
from copy import deepcopy

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import knnlm.lm.model
from knnlm.lm.anatomy import capture
from knnlm.lm.model import create_model, load_model, save_model

BLOCK = {
    "layers": 3,
    "width": 16,
    "heads": 2,
    "ffn_width": 24,
    "context": 12,
    "activation": "gelu_new",
    "tied_embeddings": True,
    "dropout": {"residual": 0.0, "attention": 0.0, "activation": 0.0},
    "without_mlp": [],
}
TOKENS = torch.arange(24).reshape(2, 12) % 20


def build(seed=0, **changes):
    return create_model({**deepcopy(BLOCK), **changes}, vocabulary_size=20, seed=seed)


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("without_mlp", [[], [-1], [0, 2]])
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_loads_with_the_same_logits_in_eval_mode(tmp_path, without_mlp, tied):
    dropout = {"residual": 0.5, "attention": 0.5, "activation": 0.5}
    model = build(without_mlp=without_mlp, tied_embeddings=tied, dropout=dropout)
    save_model(model, tmp_path)

    loaded = load_model(tmp_path)

    assert not loaded.training
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert torch.equal(logits(loaded), logits(model))


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_model(build(), tmp_path / name)

    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_model_with_all_its_mlps_loads_in_plain_transformers(tmp_path):
    model = build()
    save_model(model, tmp_path)

    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()

    assert torch.equal(logits(plain), logits(model))


def test_a_layer_without_mlp_adds_nothing_and_has_no_parameters_of_it():
    model = build(without_mlp=[-1])

    states = capture(model, TOKENS, ["ffn_input_before_layer_norm", "output_before_layer_norm"])

    assert torch.equal(states["ffn_input_before_layer_norm"], states["output_before_layer_norm"])
    assert not [name for name in model.state_dict() if ".h.2.mlp" in name or ".h.2.ln_2" in name]
    assert [name for name in model.state_dict() if ".h.1.mlp" in name]


def test_leaving_out_an_mlp_keeps_the_initial_values_of_everything_else():
    whole, without = build().state_dict(), build(without_mlp=[1]).state_dict()

    assert set(without) < set(whole)
    assert all(torch.equal(without[name], whole[name]) for name in without)


def test_the_seed_decides_the_weights():
    assert torch.equal(logits(build(seed=1)), logits(build(seed=1)))
    assert not torch.equal(logits(build(seed=1)), logits(build(seed=2)))


def test_building_a_model_does_not_touch_the_global_random_state():
    before = torch.get_rng_state()

    build()

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["residual", "attention", "activation"])
def test_each_kind_of_dropout_acts_in_training_mode_only(kind):
    dropout = {"residual": 0.0, "attention": 0.0, "activation": 0.0, kind: 0.5}
    model = build(dropout=dropout)
    assert torch.equal(logits(model), logits(build()))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = logits(model.train())

    assert not torch.equal(trained, logits(model.eval()))


def test_tied_embeddings_share_one_matrix():
    tied, untied = build(), build(tied_embeddings=False)

    assert tied.lm_head.weight is tied.transformer.wte.weight
    assert untied.lm_head.weight is not untied.transformer.wte.weight


def test_a_plain_folder_of_another_architecture_loads(tmp_path):
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)

    assert torch.equal(logits(load_model(tmp_path)), logits(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "width that the heads divide, got width 16 and 3 heads"),
        ({"activation": "sine"}, "unknown activation sine"),
        ({"without_mlp": [3]}, "names layer 3, but the model has 3"),
        ({"without_mlp": [-4]}, "names layer -4, but the model has 3"),
    ],
)
def test_a_block_that_makes_no_model_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build(**change)


def test_a_folder_of_an_unknown_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')

    with pytest.raises(ValueError, match="of type gpt2, llama, mistral, got opt"):
        load_model(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    save_model(build(), tmp_path)
    (tmp_path / "model.safetensors").unlink()

    with pytest.raises(ValueError, match=r"cannot be loaded .* expected config.json and model"):
        load_model(tmp_path)


def test_a_missing_model_is_refused_at_once_when_the_hub_is_offline(monkeypatch):
    monkeypatch.setattr(knnlm.lm.model.hub, "HF_HUB_OFFLINE", True)
    started = time.monotonic()

    with pytest.raises(ValueError, match=r"neither a folder with a config\.json nor in the cache"):
        load_model("nobody/no-such-model")

    assert time.monotonic() - started < 5


def test_a_gated_model_is_refused_with_the_way_to_get_it(monkeypatch):
    def refuse(self, name, timeout):
        raise knnlm.lm.model.GatedRepoError("403", response=Response())

    monkeypatch.setattr(knnlm.lm.model.hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(knnlm.lm.model.HfApi, "model_info", refuse)

    with pytest.raises(ValueError, match=r"is gated; accept its terms .* `hf auth login`"):
        load_model("somebody/gated")


def test_a_hub_that_cannot_be_reached_is_named_with_the_remedy(monkeypatch):
    def refuse(self, name, timeout):
        raise ConnectionError("no route")

    monkeypatch.setattr(knnlm.lm.model.hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(knnlm.lm.model.HfApi, "model_info", refuse)

    with pytest.raises(ValueError, match=r"hub cannot be reached \(ConnectionError\); fetch it"):
        load_model("somebody/model")


def test_a_model_that_was_fetched_before_loads_without_a_network(tmp_path, monkeypatch):
    model = build()
    snapshot = tmp_path / "models--somebody--ours" / "snapshots" / "1234"
    save_model(model, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1234")

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(knnlm.lm.model.HfApi, "model_info", refuse)

    assert torch.equal(logits(load_model("somebody/ours")), logits(model))


class Response:
    """The little that the hub's errors read of a response."""

    headers: dict = {}  # noqa: RUF012
    request = None
    status_code = 403
