"""Sizes that follow from the config: tokens of a corpus, queries, sentences, parameters.

What is not known before a corpus is made is estimated, and where a count was published it is
used. Standard library only: the Snakefile imports this module, in every job.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

# The generated corpus, counted at 150, 1,400 and 4,000 people: a line; shares of the splits.
GAZETTEER_BYTES, BYTES_PER_PERSON = 195_000, 2053
SHARES = {"train": 0.772, "validation": 0.114, "test": 0.114}
GAZETTEER_DOCUMENTS = {"train": 0.7, "validation": 0.1, "test": 0.1}  # a person
LEAST_DOCUMENTS = 30  # of a split, as in knnlm.text.gazetteer.corpus

# Bytes of the raw variants of Salesforce/wikitext, and documents (headings of the first level).
WIKITEXT = {
    "wikitext-2-raw-v1": {"train": 10_918_118, "validation": 1_144_748, "test": 1_288_556},
    "wikitext-103-raw-v1": {"train": 541_096_898, "validation": 1_144_748, "test": 1_288_556},
}
WIKITEXT_DOCUMENTS = {"wikitext-2-raw-v1": 629, "wikitext-103-raw-v1": 28_475}
BYTES_PER_DOCUMENT = 15_000  # of a text of one's own
LOCAL_NAMES = {"validation": ("validation", "valid")}  # as in knnlm.text.corpus
UNKNOWN_BYTES = 1e9  # of a hub corpus that is not in the lists above

# Published counts of tokens by corpus and size of a trained vocabulary: Xu et al. (2023).
PUBLISHED_TOKENS = {("wikitext-103-raw-v1", "train", 33_344): 153_225_485}

# Bytes a token of byte-level BPE by its vocabulary: counted on the generated corpus at 1,024 and
# 4,096, on WikiText-103 with GPT-2's tokenizer at 50,257.
BYTES_PER_TOKEN = {1024: 2.83, 4096: 3.98, 50_257: 4.58}

# Tokens of a sentence of Macondo and of a conversation, the end-of-document token included.
SENTENCE = {"train": 23, "validation": 23, "test": 14}
CONVERSATION = {"train": 38, "validation": 38, "test": 25}

# Shapes of pretrained models that fine-tunings name: layers, width, heads, hidden size of the
# MLP (three matrices of it where gated), vocabulary.
PRETRAINED = {
    "gpt2": (12, 768, 12, 3072, 50_257),
    "gpt2-xl": (48, 1600, 25, 6400, 50_257),
    "HuggingFaceTB/SmolLM2-360M-Instruct": (32, 960, 15, 3840, 49_152),
    "mistralai/Mistral-7B-v0.1": (32, 4096, 32, 21_504, 32_000),
    "mistralai/Mistral-7B-Instruct-v0.1": (32, 4096, 32, 21_504, 32_000),
}
LARGEST = "mistralai/Mistral-7B-v0.1"  # stands for a pretrained model that is not in the list


def vocabulary(config: Config) -> int:
    """Return the size of the corpus's vocabulary."""
    tokenizer = config["tokenizer"]
    if tokenizer["source"] == "trained":
        return tokenizer["vocabulary_size"]
    return shape_of(tokenizer["model"])["vocabulary"]


def text_bytes(config: Config, split: str, corpus: str | None = None) -> float:
    """Return the bytes of a split: of files, as published, or estimated."""
    block = config["corpora"][corpus or config["corpus"]]
    if block["source"] == "gazetteer":
        return (GAZETTEER_BYTES + block["people"] * BYTES_PER_PERSON) * SHARES[split]
    if block["source"] == "local":
        folder = Path(block["path"])
        files = [folder / f"{name}.txt" for name in LOCAL_NAMES.get(split, (split,))]
        return next((file.stat().st_size for file in files if file.is_file()), UNKNOWN_BYTES)
    return WIKITEXT.get(block["configuration"], {}).get(split, UNKNOWN_BYTES)


def documents(config: Config, split: str) -> float:
    """Return the number of documents of a split."""
    block = config["corpora"][config["corpus"]]
    if block["source"] == "gazetteer":
        return max(LEAST_DOCUMENTS, block["people"] * GAZETTEER_DOCUMENTS[split])
    if split == "train" and block.get("configuration") in WIKITEXT_DOCUMENTS:
        return WIKITEXT_DOCUMENTS[block["configuration"]]
    return max(1.0, text_bytes(config, split) / BYTES_PER_DOCUMENT)


def bytes_per_token(size: int) -> float:
    """Return the bytes a token of byte-level BPE, in a straight line over the logarithm."""
    known = sorted(BYTES_PER_TOKEN)
    for low, high in pairwise(known):
        if size <= high or high == known[-1]:
            slope = (BYTES_PER_TOKEN[high] - BYTES_PER_TOKEN[low]) / math.log(high / low)
            return max(1.0, BYTES_PER_TOKEN[low] + slope * math.log(size / low))
    raise AssertionError("two sizes at least are known")


def tokens(config: Config, split: str) -> float:
    """Return the tokens of a split."""
    size = vocabulary(config)
    name = config["corpora"][config["corpus"]].get("configuration")
    published = PUBLISHED_TOKENS.get((name, split, size))
    return published or text_bytes(config, split) / bytes_per_token(size)


def queries(config: Config, split: str) -> float:
    """Return the number of scored positions of a split."""
    every, settings = tokens(config, split), config["queries"]
    spans = settings["tokens_per_document"] or math.inf
    spans *= documents(config, split)
    return min(every, spans, settings["tokens"] or math.inf)


def queried_tokens(config: Config, model: Mapping[str, Any], split: str) -> float:
    """Return the tokens in the windows that are read to score the queries of a split."""
    settings, context = config["queries"], model["context"]
    stride = min(settings["stride"], context)
    n_queries, span = queries(config, split), settings["tokens_per_document"]
    whole = tokens(config, split) / stride * context
    if span is None:
        return whole
    return min(whole, n_queries / span * (span / stride + 1) * context)


def sentences(config: Config, town: str) -> int:
    """Return the examples of a town of Macondo: one for each child."""
    block = config["macondo"]["towns"][town]
    most = block["max_children"]
    return block["villagers_per_count"] * most * (most + 1) // 2


def conversations(config: Config) -> int:
    """Return the examples of Macondo-Conv: one for each child."""
    return config["macondo_conv"]["villagers"] * config["macondo_conv"]["children_each"]


def added_names(town: Mapping[str, Any], examples: int) -> int:
    """Return the names of children that join a vocabulary."""
    return examples if town["child_names"] == "added" else 0


def shape_of(name: str) -> dict[str, Any]:
    """Return the shape of a pretrained model, as a block of `models` has it, and `vocabulary`."""
    layers, width, heads, hidden, size = PRETRAINED.get(name, PRETRAINED[LARGEST])
    return {
        "layers": layers,
        "width": width,
        "heads": heads,
        "ffn_width": hidden,
        "context": 1024,
        "without_mlp": [],
        "tied_embeddings": not name.startswith("mistralai"),
        "activation": "gelu_new",
        "vocabulary": size,
    }


def fine_tuned_shape(config: Config, fine_tuning: str) -> dict[str, Any]:
    """Return the shape of the model that a fine-tuning trains, with its vocabulary."""
    block = config["overspecification"]["fine_tunings"][fine_tuning]
    name = block["shape"] if block["init"] == "random" else block["init"]
    if name in config["models"]:
        return {**config["models"][name], "vocabulary": vocabulary(config)}
    return shape_of(name)


def blocks_parameters(shape: Mapping[str, Any]) -> float:
    """Return the parameters of the matrices of all blocks."""
    d, hidden = shape["width"], shape["ffn_width"]
    n_mlps = shape["layers"] - len(shape.get("without_mlp", []))
    return shape["layers"] * 4 * d * d + n_mlps * 2 * d * hidden


def parameters(shape: Mapping[str, Any], size: int) -> float:
    """Return the parameters of a model with a vocabulary of some size, tied ones once."""
    heads = 1 if shape["tied_embeddings"] else 2
    return blocks_parameters(shape) + (heads * size + shape["context"]) * shape["width"]
