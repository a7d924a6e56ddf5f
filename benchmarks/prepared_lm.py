"""A trained LM of the scale `cpu` and its tokens, for benchmarks that need real hidden states."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from knnlm.lm.pretraining import train_language_model
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.making import Target
from knnlm.runtime.settings import resolve
from knnlm.text.corpus import build_corpus
from knnlm.text.encoding import tokenize_corpus
from knnlm.text.tokenizer import build_tokenizer

ROOT = Path(__file__).resolve().parents[1]


class Prepared(NamedTuple):
    """Folders of artifacts, and the merged settings they were made with."""

    tokens: Path
    tokenizer: Path
    model: Path
    config: dict[str, Any]


def settings() -> dict[str, Any]:
    """Return the settings of the default run."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text("utf-8"))
    defaults, schema = with_experiments(config, schema, read_experiments(ROOT).values())
    return resolve(defaults, {}, schema)


def prepare(folder: Path, *, updates: int, people: int) -> Prepared:
    """Make the gazetteer, its tokenizer and tokens, and an LM trained for some updates."""
    config = settings()
    name = config["corpus"]
    corpus = {**config["corpora"][name], "people": people}
    text, tokenizer, tokens, model = (
        folder / part for part in ("text", "tokenizer", "tokens", "model")
    )
    build_corpus(
        Target(text, "bench", {"corpus": name}),
        corpus=corpus,
        cache=folder / "downloads",
    )
    build_tokenizer(
        Target(tokenizer, "bench"),
        text=text,
        tokenizer=config["tokenizers"][config["models"]["base"]["tokenizer"]],
        cache=folder / "downloads",
    )
    context = config["models"]["base"]["context"]
    tokenize_corpus(
        Target(tokens, "bench"),
        text=text,
        tokenizer=tokenizer,
        minimum_tokens=dict.fromkeys(("train", "validation", "test"), context + 1),
    )
    shape = config["models"]["base"]
    a_batch = shape["training"]["batch_size"] * shape["training"]["accumulation"] * context
    training = {**shape["training"], "tokens": updates * a_batch}
    train_language_model(
        Target(model, "bench", {"seed": "0"}),
        tokens=tokens,
        tokenizer=tokenizer,
        model={**shape, "training": training},
    )
    return Prepared(tokens, tokenizer, model, config)
