"""Core-seconds to a validation loss: how the base LM is trained against how it was before."""

import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from prepared_lm import prepare_tokens, settings
from ratio_table import Row

from knnlm.lm.pretraining import LOG, VALIDATION_LOSS, train_language_model
from knnlm.runtime.artifacts import read_manifest
from knnlm.runtime.making import Target

BEFORE = {  # of the scale `cpu` until November 2026, with a dropout for as many epochs
    "optimizer": {"name": "adamw", "lr": 3.0e-3, "betas": [0.9, 0.98], "weight_decay": 0.1},
    "dropout": {"residual": 0.1, "attention": 0.1, "activation": 0.0},
}
EPOCHS = 20  # of the recipe before
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)  # of its epochs, until ours has reached its loss


def recipe_rows() -> tuple[list[Row], str]:
    """Train by both recipes; return the core-seconds to the loss that the old one reaches."""
    config = settings()
    base = config["models"]["base"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people = config["corpora"][config["corpus"]]["people"]
        tokens, tokenizer = prepare_tokens(folder, config, people=people)
        epoch = read_manifest(tokens, kind="tokens")["contents"]["train"]["tokens"]

        def trained(label: str, epochs: float, **changes: Any) -> tuple[float, float]:
            """Return core-seconds and validation loss of a whole training."""
            steps = {"tokens": int(epochs * epoch), "validate_every": 10**9}
            training = base["training"] | steps | changes.pop("training", {})
            target, start = Target(folder / label, "bench", {"seed": "0"}), time.process_time()
            model = base | changes | {"training": training}
            train_language_model(target, tokens=tokens, tokenizer=tokenizer, model=model)
            seconds = time.process_time() - start
            log = pd.read_parquet(target.output / LOG)
            return seconds, float(log[VALIDATION_LOSS].iloc[-1])

        before = {"training": {"optimizer": BEFORE["optimizer"]}, "dropout": BEFORE["dropout"]}
        theirs, loss = trained("before", EPOCHS, **before)
        for share in SHARES:
            ours, reached = trained(f"ours-{share}", share * EPOCHS)
            if reached <= loss:
                break
    note = (
        f"{EPOCHS} epochs by the recipe before end at a validation loss of {loss:.3f} nats a "
        f"token; ours ends {share * EPOCHS:g} epochs at {reached:.3f}."
    )
    return [Row("base LM to that loss: CPU s, AdamW", ours, theirs, ">= 2", inverted=True)], note
