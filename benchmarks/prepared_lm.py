"""A trained LM of the scale `cpu` and its tokens, for benchmarks that need real hidden states."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from knnlm.lm.pretraining import train_language_model
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.making import Target
from knnlm.runtime.relations import tokens_needed
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
    tokens, tokenizer = prepare_tokens(folder, config, people=people)
    base = config["models"]["base"]
    a_batch = base["training"]["batch_size"] * base["training"]["accumulation"] * base["context"]
    training = {**base["training"], "tokens": updates * a_batch}
    model = folder / "model"
    train_language_model(
        Target(model, "bench", {"seed": "0"}),
        tokens=tokens,
        tokenizer=tokenizer,
        model={**base, "training": training},
    )
    return Prepared(tokens, tokenizer, model, config)


def prepare_tokens(folder: Path, config: dict[str, Any], *, people: int) -> tuple[Path, Path]:
    """Make the gazetteer and its tokens; return the folders of tokens and tokenizer."""
    name, base = config["corpus"], config["models"]["base"]
    corpus = {**config["corpora"][name], "people": people}
    text, tokenizer, tokens = (folder / part for part in ("text", "tokenizer", "tokens"))
    build_corpus(
        Target(text, "bench", {"corpus": name}),
        corpus=corpus,
        cache=folder / "downloads",
    )
    build_tokenizer(
        Target(tokenizer, "bench"),
        text=text,
        tokenizer=config["tokenizers"][base["tokenizer"]],
        cache=folder / "downloads",
    )
    tokenize_corpus(
        Target(tokens, "bench"),
        text=text,
        tokenizer=tokenizer,
        needed=tokens_needed(config, name, base["tokenizer"]),
    )
    return tokens, tokenizer
