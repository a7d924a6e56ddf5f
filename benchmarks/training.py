"""Training against the Trainer of transformers, and against the machine's matrix products.

Same model, data, batches, steps, learning rate and threads for both. The Trainer has its best
settings for a CPU: fused AdamW, no logging, saving or evaluation, columns left as they are. Rows:
from scratch on windows of 128 tokens at three widths, with the share of the measured peak of a
matrix product (fp32, same threads; FLOPs as counted for an update, attention included); and
fine-tuning on Macondo: 4 short sentences an update, padded to the longest as the Trainer's
collator does. The Trainer runs first, in a process as it is; ours then reuse the memory that they
free, as every job of the workflow does. Then the bound of fine-tuning: the same updates if nothing
but their matrix products took time, by their share in torch's profiler. The last row trains the
base LM of the scale `cpu` as it was before to some validation loss, and as it is now to the same.

One thread, as at the scale `cpu`; times are CPU times, as other work may share the cores.

    .venv/bin/python benchmarks/training.py [--updates 24] [--threads 1]
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments
from transformers.utils.logging import set_verbosity_error

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from ratio_table import Row, print_table
from recipes import recipe_rows

from knnlm.experiments.shared.flops import update_flops, window, without_data
from knnlm.lm.finetuning import IGNORED, Epochs, NextToken, Texts, mean_nll
from knnlm.lm.model import create_model
from knnlm.lm.pretraining import next_token_loss
from knnlm.lm.training import Journal, Recipe, train
from knnlm.runtime.memory import keep_freed_blocks

WIDTHS = {128: 4, 192: 6, 384: 6}  # heads
LAYERS, CONTEXT, VOCABULARY, WINDOWS = 4, 128, 4096, 8
SENTENCES, LONGEST = 4, 24
PRODUCTS = ("aten::mm", "aten::addmm")  # all but those of attention
LR, CLIP = 1e-3, 1.0
REPETITIONS = 2  # of each; the fastest counts


def block(width: int) -> dict:
    return {
        "layers": LAYERS,
        "width": width,
        "heads": WIDTHS[width],
        "ffn_width": 4 * width,
        "context": CONTEXT,
        "activation": "gelu_new",
        "tied_embeddings": True,
        "dropout": {"residual": 0.0, "attention": 0.0, "activation": 0.0},
        "without_mlp": [],
    }


def their_model(width: int) -> GPT2LMHeadModel:
    shape = {"n_embd": width, "n_layer": LAYERS, "n_head": WIDTHS[width], "n_inner": 4 * width}
    nothing = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, **shape, **nothing)
    return GPT2LMHeadModel(config)


def trainer_seconds(width: int, rows: list[dict], updates: int, batch: int) -> float:
    """Return the seconds of a training by the Trainer."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            model=their_model(width),
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=batch,
                max_steps=updates,
                learning_rate=LR,
                max_grad_norm=CLIP,
                optim="adamw_torch_fused",
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=rows,
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)
        start = time.process_time()
        trainer.train()
        return time.process_time() - start


def collate(rows: list[dict]) -> dict[str, Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[i, :length] = labels[i, :length] = torch.from_numpy(row["input_ids"])
        mask[i, :length] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def our_seconds(module, loss: Callable, batch_at: Callable, updates: int) -> float:
    """Return the seconds of a training by our loop."""
    recipe = Recipe(
        steps=updates,
        optimizer={"name": "adamw", "lr": LR, "betas": [0.9, 0.999], "weight_decay": 0.0},
        schedule={"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
        clip_norm=CLIP,
        precision="fp32",
        accumulation=1,
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train(
            module,
            recipe,
            batch_at=batch_at,
            loss=loss,
            journal=Journal(Path(folder), save_every=updates, log_every=updates),
        )
        return time.process_time() - start


def gemm_peak(side: int = 1024) -> float:
    """Return the FLOP/s of a square fp32 matrix product, the fastest of some."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    best = np.inf
    for _ in range(12):
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * side**3 / best


def best(seconds: Callable[[], float]) -> float:
    return min(seconds() for _ in range(REPETITIONS))


def from_scratch(width: int, stream: Tensor, theirs: float) -> list[Row]:
    """Compare a training from scratch on windows (updates, windows, tokens) with the Trainer's."""
    updates = len(stream)

    def trained() -> float:
        model = create_model(block(width), vocabulary_size=VOCABULARY, seed=0)
        return our_seconds(model, next_token_loss, lambda n: stream[n], updates)

    model = create_model(block(width), vocabulary_size=VOCABULARY, seed=0)
    flops = update_flops(without_data(model).requires_grad_(True), **window(CONTEXT)) * WINDOWS
    ours = best(trained)
    speed = [updates * WINDOWS * CONTEXT / seconds for seconds in (ours, theirs)]
    reached, peak = flops * updates / ours / 1e9, gemm_peak() / 1e9
    goal = ">= 0.55" if width >= 192 else ""
    return [
        Row(f"from scratch, width {width}: tokens/s, Trainer", *speed, ">= 1"),
        Row(f"from scratch, width {width}: GFLOP/s, matrix product", reached, peak, goal),
    ]


def fine_tuning(texts: Texts, updates: int, theirs: float) -> tuple[list[Row], str]:
    """Compare a fine-tuning on sentences with the Trainer's, and say what its products take."""
    epochs = Epochs(texts, batch_size=SENTENCES, seed=0, positions="plain", context=CONTEXT)

    def tuned() -> float:
        model = create_model(block(128), vocabulary_size=VOCABULARY, seed=0)
        return our_seconds(NextToken(model), mean_nll, epochs.batch, updates)

    mine, peer = updates / best(tuned), updates / theirs
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        tuned()
    operators = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    share = sum(operators[name] for name in PRODUCTS) / sum(operators.values())
    what = "fine-tuning on 4 short sentences: updates/s"
    note = (
        f"An update of the fine-tuning takes {1e3 / mine:.1f} ms, the Trainer's {1e3 / peer:.1f}. "
        f"{share:.0%} of ours are matrix products, which the Trainer computes as well: were all "
        f"else free, it would be {mine / share / peer:.1f} times as fast as the Trainer's."
    )
    alone = Row(f"{what}, its matrix products alone", mine, mine / share)
    return [Row(f"{what}, Trainer", mine, peer, ">= 2"), alone], note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    set_verbosity_error()
    rng = np.random.default_rng(0)
    stream = rng.integers(0, VOCABULARY, (options.updates, WINDOWS, CONTEXT + 1))
    windows = [{"input_ids": row[:-1]} for row in stream.reshape(-1, CONTEXT + 1)]
    short = 5 * options.updates
    lengths = rng.integers(LONGEST - 8, LONGEST + 1, short * SENTENCES)
    tokens = rng.integers(0, VOCABULARY, (short * SENTENCES, LONGEST))
    cut = [{"input_ids": row[:length]} for row, length in zip(tokens, lengths, strict=True)]

    theirs = {
        width: best(lambda width=width: trainer_seconds(width, windows, options.updates, WINDOWS))
        for width in WIDTHS
    }
    their_tuning = best(lambda: trainer_seconds(128, cut, short, SENTENCES))
    keep_freed_blocks()
    batches = torch.from_numpy(stream)
    rows = [row for width in WIDTHS for row in from_scratch(width, batches, theirs[width])]
    texts = Texts(tokens, lengths, lengths - 1)
    tuned, note = fine_tuning(texts, short, their_tuning)
    recipes, losses = recipe_rows()
    print_table(
        f"Training, {LAYERS} layers, vocabulary {VOCABULARY:,}, CPU time of {options.threads} "
        f"{'thread' if options.threads == 1 else 'threads'}",
        [*rows, *tuned, *recipes],
        f"{options.updates} updates of {WINDOWS} windows of {CONTEXT} tokens; {short} updates of "
        f"{SENTENCES} sentences of up to {LONGEST} tokens.",
        note,
        losses,
    )


if __name__ == "__main__":
    main()
