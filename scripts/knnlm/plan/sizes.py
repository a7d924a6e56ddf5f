"""Sizes that follow from the config: bytes and tokens of texts, queries, neighbors, examples.

A count that was published is used, others are estimated. Standard library only.
"""

import math
from pathlib import Path
from typing import NamedTuple

from knnlm.plan.needs import Config, Need, Wildcards
from knnlm.plan.shapes import (
    Shape,
    UnknownShapeError,
    shape_of_fine_tuning,
    shape_of_model,
    training,
    vocabulary_of,
)
from knnlm.plan.units import INVERTED_FILES

SPLITS = ("train", "validation", "test")
# Of the generated corpus, counted at 150, 1,400 and 4,000 people: a line, and shares of splits.
GAZETTEER_BYTES, BYTES_PER_PERSON = 195_000, 2053
SHARES = {"train": 0.772, "validation": 0.114, "test": 0.114}
DOCUMENTS = {"train": 0.7, "validation": 0.1, "test": 0.1}  # a person
WIKITEXT = {"train": 541_096_898, "validation": 1_144_748, "test": 1_288_556}
WIKITEXT_2_TRAIN, BYTES_PER_DOCUMENT = 10_918_118, 15_000
UNKNOWN_BYTES = 1e9  # of another corpus of the hub
PUBLISHED_TOKENS = {("wikitext-103-raw-v1", "train", 33_344): 153_225_485}  # Xu et al. (2023)
# Bytes a token of byte-level BPE at a vocabulary: counted on the generated corpus, and the last on
# WikiText-103; in between on straight lines over the logarithm.
BYTES_PER_TOKEN = ((1024, 2.83), (4096, 3.98), (50_257, 4.58))
SENTENCE = 23  # tokens of a sentence of Macondo, the end-of-document token included
NEIGHBOR = 16  # bytes of an id, a distance and a value


def text_bytes(config: Config, corpus: str, split: str) -> float:
    """Return the bytes of a split: of files, as published, or estimated."""
    block = config["corpora"][corpus]
    name = block.get("configuration", "")
    if block["source"] == "gazetteer":
        return (GAZETTEER_BYTES + block["people"] * BYTES_PER_PERSON) * SHARES[split]
    if block["source"] == "local":  # "valid" is as good a name as "validation"
        files = sorted(Path(block["path"]).glob(f"{split.removesuffix('ation')}*.txt"))
        return files[0].stat().st_size if files else UNKNOWN_BYTES
    if name.startswith("wikitext-2-") and split == "train":
        return WIKITEXT_2_TRAIN
    return WIKITEXT[split] if name.startswith("wikitext-") else UNKNOWN_BYTES


def tokens(config: Config, corpus: str, tokenizer: str, split: str) -> float:
    """Return the tokens of a split."""
    try:
        size = vocabulary_of(config, tokenizer)
    except UnknownShapeError:
        size = BYTES_PER_TOKEN[-1][0]
    known = (config["corpora"][corpus].get("configuration"), split, size)
    (low, first), (high, last) = BYTES_PER_TOKEN[:2] if size < 4096 else BYTES_PER_TOKEN[1:]
    ratio = first + (last - first) * math.log(size / low) / math.log(high / low)
    return PUBLISHED_TOKENS.get(known) or text_bytes(config, corpus, split) / max(1.0, ratio)


def queries(config: Config, model: str, corpus: str, split: str) -> float:
    """Return the positions of a split that a model is scored at."""
    settings, block = config["queries"], config["corpora"][corpus]
    documents = text_bytes(config, corpus, split) / BYTES_PER_DOCUMENT
    if block["source"] == "gazetteer":
        documents = max(30, block["people"] * DOCUMENTS[split])
    spans = (settings["tokens_per_document"] or math.inf) * max(1, documents)
    every = tokens(config, corpus, config["models"][model]["tokenizer"], split)
    return min(every, spans, settings["tokens"] or math.inf)


def neighbors(config: Config, wildcards: Wildcards) -> float:
    """Return the bytes of the neighbors of a split's queries in a datastore."""
    block = config["datastores"][wildcards["datastore"]]
    count = queries(config, block["model"], wildcards["corpus"], wildcards["split"])
    return min(count, block["queries"] or math.inf) * config["search"]["k"] * NEIGHBOR


class Part(NamedTuple):
    """A part of a datastore, in whole shards or blocks: its LM, entries, and bytes of each."""

    shape: Shape
    rows: float
    key: float
    entry: float
    code: float  # in an inverted file


def part_of(config: Config, wildcards: Wildcards) -> Part:
    """Return the part of a datastore that the wildcards name, or else the whole of it."""
    block = config["datastores"][wildcards["datastore"]]
    index = config["indexes"].get(wildcards.get("index"), {})
    model, shape = config["models"][block["model"]], shape_of_model(config, block["model"])
    key = shape.width * (2 if block["dtype"] == "float16" else 4)
    entry = key + (2 if shape.vocabulary <= 1 << 16 else 4)
    code = index.get("code_bytes", 4 * shape.width) if index.get("engine") in INVERTED_FILES else 0
    rows = block["share"] * (tokens(config, block["corpus"], model["tokenizer"], "train") - 1)
    if "part" in wildcards:
        unit = index.get("block_keys", 1 << int(math.log2((block["shard_mib"] << 20) / key)))
        units, part = math.ceil(rows / unit), int(wildcards["part"])
        first, stop = (units * n // block["parts"] * unit for n in (part, part + 1))
        rows = min(stop, rows) - min(first, rows)
    return Part(shape, rows, key, entry, code)


def sentences(config: Config, town: str) -> int:
    """Return the examples of a town of Macondo: one for each child."""
    block = config["macondo"]["towns"][town]
    return block["villagers_per_count"] * block["max_children"] * (block["max_children"] + 1) // 2


def fine_tune(config: Config, name: str, *, examples: int, length: int) -> tuple[Need, Shape]:
    """Return what an entry of `fine_tunings` needs on short texts, and the shape with all names."""
    block, shape = config["fine_tunings"][name], shape_of_fine_tuning(config, name, names=examples)
    batch, lora = min(block["batch_size"], examples) * length, block["lora"]
    trained = lora and 16 * lora["rank"] * shape.width * shape.layers
    passes = block["epochs"] * math.ceil(examples / block["batch_size"])
    need = training(shape, block, batch=batch, passes=passes, span=length, trained=trained)
    return need, shape
