"""Shapes of language models: parameters, FLOPs and memory, by their matrices alone.

That of a pretrained model is read from its config.json. Standard library, but for the hub's cache.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from knnlm.plan.needs import FP32, Config, Need

PLAIN, GATED = 9, 5  # values of the hidden size of an MLP that a backward pass needs
ASPECT = 64  # width over layers of a model of which only the size is known, as in GPT-2


class UnknownShapeError(ValueError):
    """The shape of a pretrained model cannot be read, and no setting says how large it is."""


@dataclass(frozen=True)
class Shape:
    """Layers, width, vocabulary; parameters of matrices; values that an MLP keeps of a token."""

    layers: float
    width: float
    vocabulary: float
    blocks: float
    embeddings: float  # with the head, once if they are tied
    kept: float

    @property
    def parameters(self) -> float:
        """All parameters but those of norms and biases."""
        return self.blocks + self.embeddings

    def forward(self, tokens: float, *, span: float, scored: float = 0.0) -> float:
        """Return the FLOPs of reading tokens in windows of `span`, some of them with logits."""
        attention = 4 * self.layers * self.width * span
        return tokens * (2 * self.blocks + attention) + 2 * scored * self.width * self.vocabulary

    def states(self, tokens: float, *, layers: float = 1.0) -> float:
        """Return the bytes of hidden states; those of one layer at a time, without gradients."""
        return FP32 * tokens * layers * (9 * self.width + self.kept)


def own(block: Mapping[str, Any], vocabulary: float) -> Shape:
    """Return the shape of a model of our own, from its settings."""
    d, hidden, layers = block["width"], block["ffn_width"], block["layers"]
    blocks = layers * 4 * d * d + (layers - len(block.get("without_mlp", ()))) * 2 * d * hidden
    embeddings = ((1 if block["tied_embeddings"] else 2) * vocabulary + block["context"]) * d
    return Shape(layers, d, vocabulary, blocks, embeddings, PLAIN * hidden)


def pretrained(name: str, size_gb: float | None, *, names: float = 0) -> Shape:
    """Return the shape of a model by folder or name, with so many names in its vocabulary.

    Without a config.json to read, the GB of its fp32 weights say how large it is.

    Raises:
        UnknownShapeError: if neither is there.
    """
    found = read_config(name)
    if found is None and size_gb is None:
        raise UnknownShapeError(f"{name} has no config.json here yet, and no size_gb is set")
    if found is None:
        layers = (size_gb * 1e9 / FP32 / 12 / ASPECT**2) ** (1 / 3)
        hidden = 4 * ASPECT * layers
        return Shape(layers, ASPECT * layers, 50_000, size_gb * 1e9 / FP32, 0, PLAIN * hidden)
    gated = "n_embd" not in found  # as in Llama and Mistral, or else GPT-2
    d, layers = (
        found["hidden_size" if gated else "n_embd"],
        found["num_hidden_layers" if gated else "n_layer"],
    )
    heads = found["num_attention_heads" if gated else "n_head"]
    hidden = found.get("intermediate_size") or found.get("n_inner") or 4 * d
    projected = 2 * (heads + (found.get("num_key_value_heads") or heads))  # Q, K, V and output
    projected *= found.get("head_dim") or d // heads
    size, tied = found["vocab_size"] + names, found.get("tie_word_embeddings", not gated)
    blocks = layers * d * (projected + (3 if gated else 2) * hidden)
    kept = (GATED if gated else PLAIN) * hidden
    return Shape(layers, d, size, blocks, (1 if tied else 2) * size * d, kept)


@cache
def read_config(name: str) -> dict[str, Any] | None:
    """Return config.json of a pretrained model in a folder or the hub's cache; None without it."""
    path: Any = Path(name) / "config.json"
    if not path.is_file():
        try:
            from huggingface_hub import try_to_load_from_cache  # looks at files, asks no network

            path = try_to_load_from_cache(name, "config.json")
        except (ImportError, ValueError):  # no such library, or a path and no name of the hub
            path = None
    return json.loads(Path(path).read_text("utf-8")) if isinstance(path, str | Path) else None


def vocabulary_of(config: Config, tokenizer: str) -> float:
    """Return the entries of a tokenizer; of a pretrained one those of its model."""
    block = config["tokenizers"][tokenizer]
    trained = block["source"] == "trained"
    return block["vocabulary_size"] if trained else pretrained(block["model"], None).vocabulary


def shape_of_model(config: Config, model: str, *, names: float = 0) -> Shape:
    """Return the shape of an entry of `models`, with so many names in its vocabulary."""
    block = config["models"][model]
    if block["source"] == "pretrained":
        return pretrained(block["model"], block.get("size_gb"), names=names)
    return own(block, vocabulary_of(config, block["tokenizer"]) + names)


def shape_of_fine_tuning(config: Config, fine_tuning: str, *, names: float) -> Shape:
    """Return the shape of the model that an entry of `fine_tunings` trains."""
    block = config["fine_tunings"][fine_tuning]
    name = block["shape"] if block["init"] == "random" else block["init"]
    if name in config["models"]:
        return shape_of_model(config, name, names=names)
    return pretrained(name, block.get("size_gb"), names=names)


def training(
    shape: Shape,
    block: Mapping[str, Any],
    *,
    batch: float,
    passes: float,
    span: float,
    scored: float = 0.0,
    trained: float | None = None,
) -> Need:
    """Return what a training needs, by its block of settings.

    `batch` tokens are read in each of `passes`, in windows of `span`; `scored` more without a
    backward pass; `trained` are the parameters with gradients and moments, None is all of them.
    """
    count = shape.parameters if trained is None else trained
    kept = shape.states(batch, layers=shape.layers) / (1 if block["precision"] == "fp32" else 2)
    read, state = 3 * passes * batch + scored, 3 * FP32 * count
    return Need(
        gpu=True,
        memory=FP32 * shape.parameters / 4,
        gpu_memory=FP32 * (shape.parameters + 3 * batch * shape.vocabulary) + state + kept,
        disk=state,
        flops=shape.forward(read, span=span, scored=read),
        layers=passes * shape.layers,
        moved=state * passes / block.get("accumulation", 1) / block["save_every"],
    )


def mlp_training(inner: float, head: float, logits: float, pairs: float) -> Need:
    """Return what training an MLP on pairs needs, by its parameters and the logits of a batch."""
    count = inner + head
    gpu_memory, memory = 4 * FP32 * (count + logits) + FP32 * head, FP32 * count
    flops = 6 * pairs * count
    return Need(gpu=True, memory=memory, gpu_memory=gpu_memory, disk=12 * count, flops=flops)
