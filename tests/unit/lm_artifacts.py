"""Small tokenizer, tokens and model artifacts for the tests of the language model wing."""

from pathlib import Path

import numpy as np

from knnlm.runtime.artifacts import identity, save_array, write_manifest
from knnlm.text.tokens import TokenStream, array_path

END_OF_DOCUMENT = 0
VOCABULARY = 30
LENGTHS = {"train": [150, 90, 60], "validation": [50, 40], "test": [40, 3, 25]}
MODEL = {
    "layers": 2,
    "width": 16,
    "heads": 2,
    "ffn_width": 32,
    "context": 8,
    "activation": "gelu_new",
    "tied_embeddings": True,
    "dropout": {"residual": 0.1, "attention": 0.1, "activation": 0.1},
    "without_mlp": [],
    "training": {
        "tokens": 1_600,
        "batch_size": 2,
        "accumulation": 2,
        "optimizer": {"name": "adamw", "lr": 0.01, "betas": [0.9, 0.98], "weight_decay": 0.1},
        "schedule": {"name": "linear", "warmup_steps": 5, "decay_share": 0.4},
        "clip_norm": 1.0,
        "precision": "fp32",
        "validate_every": 12,
        "validation_tokens": 60,
        "early_stopping": None,
        "save_every": 7,
    },
}


def stream_of(lengths, *, seed=0):
    """Return a stream of documents with these numbers of tokens; some tokens continue a word."""
    rng = np.random.default_rng(seed)
    documents = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
    # Each token is often the one before it plus one, so that there is something to learn.
    steps = rng.choice([1, 5], size=documents[-1], p=[0.8, 0.2])
    tokens = 1 + np.cumsum(steps) % (VOCABULARY - 1)
    words = (rng.random(documents[-1]) < 0.6).astype(np.uint8)
    lines = ((rng.random(documents[-1]) < 0.3) & (words == 0)).astype(np.uint8)
    tokens[documents[:-1]] = END_OF_DOCUMENT
    words[documents[:-1]] = lines[documents[:-1]] = 0
    return TokenStream(
        tokens=tokens.astype(np.uint16),
        starts=np.arange(documents[-1]),
        documents=documents,
        words=words,
        lines=lines,
    )


def write_tokenizer(folder: Path, *, name="ours"):
    """Write a tokenizer artifact without a tokenizer in it."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(f'"{name}"')
    contents = {"vocabulary_size": VOCABULARY, "end_of_document": END_OF_DOCUMENT}
    write_manifest(folder, kind="tokenizer", settings={}, made_from={}, contents=contents)
    return folder


def write_tokens(folder: Path, tokenizer: Path, *, seed=0, lengths=None):
    """Write a tokens artifact with three splits."""
    lengths = {
        "train": [150, 90, 60],
        "validation": [50, 40],
        "test": [40, 3, 25],
        **(lengths or {}),
    }
    folder.mkdir(parents=True)
    for number, (split, sizes) in enumerate(lengths.items()):
        stream = stream_of(sizes, seed=10 * seed + number)
        for name in ("tokens", "starts", "documents", "words", "lines"):
            save_array(array_path(folder, split, name), getattr(stream, name))
    write_manifest(
        folder,
        kind="tokens",
        settings={},
        made_from={"tokenizer": identity(tokenizer, kind="tokenizer")},
        contents={"vocabulary_size": VOCABULARY, "end_of_document": END_OF_DOCUMENT},
    )
    return folder
