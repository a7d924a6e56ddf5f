"""Sizes that follow from the config: of models, texts, queries, neighbors and datastores."""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

from knnlm.lm.pretrained_folder import CONFIG, read_shape
from knnlm.plan.needs import FP32, NEIGHBOR, Settings, Wildcards

INVERTED_FILES = ("ivf_flat", "ivfpq")  # the engines with an index on disk
KEPT_VALUES = 9  # values of the width, and of the hidden size, that a layer keeps of a token
ASPECT = 64  # width over layers of a model of which only the size is known, as in GPT-2
SENTENCE = 23  # tokens of a sentence of Macondo, the end-of-document token included
TRAIN_BYTES = {"wikitext-103-raw-v1": 541_096_898, "wikitext-2-raw-v1": 10_918_118}
HELD_OUT_BYTES = {"validation": 1_144_748, "test": 1_288_556}  # of both
PUBLISHED_TOKENS = {("wikitext-103-raw-v1", "train", 33_344): 153_225_485}  # Xu et al. (2023)
UNKNOWN_BYTES = 1e9  # of another corpus of the hub


class UnknownModelError(ValueError):
    """The shape of a pretrained model cannot be read, and no setting says how large it is."""


class ModelSize(NamedTuple):
    """Sizes of a language model; its parameters are those of matrices."""

    layers: float
    width: float
    ffn_width: float
    vocabulary: float
    block_parameters: float
    parameters: float  # and those of embeddings and head

    def forward(self, tokens: float, *, span: float, scored: float = 0.0) -> float:
        """Return the FLOPs of reading tokens in windows of `span`, some of them with logits."""
        a_token = 2 * self.block_parameters + 4 * self.layers * self.width * span
        return tokens * a_token + 2 * scored * self.width * self.vocabulary

    def states(self, tokens: float) -> float:
        """Return the bytes of the hidden states of one layer."""
        return FP32 * tokens * KEPT_VALUES * (self.width + self.ffn_width)


def own_size(block: Settings, vocabulary: float) -> ModelSize:
    """Return the size of a model of our own, from its settings."""
    d, hidden, layers = block["width"], block["ffn_width"], block["layers"]
    blocks = layers * (4 * d * d + 2 * d * hidden)
    embeddings = ((1 if block["tied_embeddings"] else 2) * vocabulary + block["context"]) * d
    return ModelSize(layers, d, hidden, vocabulary, blocks, blocks + embeddings)


@cache
def pretrained_size(name: str, size_gb: float | None) -> ModelSize:
    """Return the size of a model in a folder or in the cache of the hub, by its config.json.

    Where none can be read, the GB of the weights in fp32 say how large it is.

    Raises:
        UnknownModelError: if neither is there.
    """
    try:
        found = read_shape(_config_file(name))
    except ValueError as error:
        if size_gb is None:
            message = f"{name} has no config.json here that can be read, and no size_gb is set"
            raise UnknownModelError(message) from error
        count = size_gb * 1e9 / FP32
        d = ASPECT * (count / 12 / ASPECT**2) ** (1 / 3)
        return ModelSize(d / ASPECT, d, 4 * d, 50_000, count, count)
    d, hidden = found.width, found.ffn_width
    attention = 2 * d * d * (1 + found.key_value_heads / found.heads)  # Q and output, K and V
    mlp = (2 if found.model_type == "gpt2" else 3) * d * hidden  # the others have gates
    blocks, vocabulary = found.layers * (attention + mlp), found.vocabulary_size
    embeddings = (1 if found.tied_embeddings else 2) * vocabulary * d
    return ModelSize(found.layers, d, hidden, vocabulary, blocks, blocks + embeddings)


def _config_file(name: str) -> Path:
    path = Path(name) / CONFIG
    try:
        from huggingface_hub import try_to_load_from_cache  # asks no network

        found = None if path.is_file() else try_to_load_from_cache(name, CONFIG)
    except (ImportError, ValueError):  # no such library, or a path and no name of the hub
        return path
    return Path(found) if isinstance(found, str) else path


def model_size(config: Settings, name: str, size_gb: float | None = None) -> ModelSize:
    """Return the size of an entry of `models`, or of a pretrained model."""
    block = config["models"].get(name, {"source": "pretrained", "model": name, "size_gb": size_gb})
    if block["source"] == "pretrained":
        return pretrained_size(block["model"], block.get("size_gb"))
    tokenizer = config["tokenizers"][block["tokenizer"]]
    trained = tokenizer.get("vocabulary_size")
    return own_size(block, trained or pretrained_size(tokenizer["model"], None).vocabulary)


def text_bytes(config: Settings, corpus: str, split: str) -> float:
    """Return the bytes of a split: of files, as published, or estimated."""
    block = config["corpora"][corpus]
    if block["source"] == "gazetteer":  # counted at 150, 1,400 and 4,000 people
        share = 1 - 2 * block["held_out"] if split == "train" else block["held_out"]
        return (195_000 + 2053 * block["people"]) * share
    if block["source"] == "local":  # "valid" is as good a name as "validation"
        files = sorted(Path(block["path"]).glob(f"{split.removesuffix('ation')}*.txt"))
        return files[0].stat().st_size if files else UNKNOWN_BYTES
    train = TRAIN_BYTES.get(block["configuration"], UNKNOWN_BYTES)
    return {"train": train, **HELD_OUT_BYTES}[split]


def tokens(config: Settings, corpus: str, tokenizer: str, split: str) -> float:
    """Return the tokens of a split."""
    size = config["tokenizers"][tokenizer].get("vocabulary_size", 50_257)
    known = (config["corpora"][corpus].get("configuration"), split, size)
    # Counted bytes a token of BPE: 2.8 at a vocabulary of 1,024, 4.0 at 4,096, 4.6 at 50,257.
    ratio = max(1.0, min(4.6, math.log2(size) / 2 - 2))
    return PUBLISHED_TOKENS.get(known) or text_bytes(config, corpus, split) / ratio


def queries(config: Settings, model: str, corpus: str, split: str) -> float:
    """Return the positions of a split that a model is scored at."""
    every = tokens(config, corpus, config["models"][model]["tokenizer"], split)
    return min(every, config["queries"]["tokens"] or math.inf)


def searched(config: Settings, wildcards: Wildcards) -> float:
    """Return how many queries of a split are searched in a datastore."""
    block = config["datastores"][wildcards["datastore"]]
    count = queries(config, block["model"], wildcards["corpus"], wildcards["split"])
    return min(count, block["queries"] or math.inf)


def neighbors(config: Settings, wildcards: Wildcards) -> float:
    """Return the bytes of the neighbors of a split's queries in a datastore."""
    again = config["indexes"].get(wildcards.get("index"), {}).get("rescore")
    size = NEIGHBOR + (FP32 if again else 0)  # those of the codes are kept too
    return searched(config, wildcards) * config["search"]["k"] * size


def entries(config: Settings, wildcards: Wildcards) -> tuple[float, float, ModelSize]:
    """Return the entries of a datastore or of a part, the bytes of all, and the size of its LM."""
    block = config["datastores"][wildcards["datastore"]]
    tokenizer, size = (
        config["models"][block["model"]]["tokenizer"],
        model_size(config, block["model"]),
    )
    count = block["share"] * (tokens(config, block["corpus"], tokenizer, "train") - 1)
    count /= block["parts"] if "part" in wildcards else 1
    key = size.width * (2 if block["dtype"] == "float16" else FP32)
    return count, count * (key + (2 if size.vocabulary <= 1 << 16 else 4)), size
