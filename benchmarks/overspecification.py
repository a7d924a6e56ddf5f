"""What scoring the LM and the LM + kNN as training goes adds to a fine-tuning on Macondo.

Prints one table for the settings of config.yaml at the scale `cpu`: seconds of an update, of an
evaluation (all three splits, the datastore encoded and searched anew), and the ratio of what all
evaluations and all updates take, which should stay below 0.25. The MLP is counted apart: it is
trained behind the fine-tuning, by a rule of its own.

    .venv/bin/python benchmarks/overspecification.py [--updates 200] [--evaluations 5]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import prepared_lm
from ratio_table import Row, print_table

from knnlm.experiments.overspecification.names import temperatures
from knnlm.experiments.overspecification.scores import score_children
from knnlm.experiments.shared.fine_tuning import Training
from knnlm.lm.finetuning import NextToken, mean_nll, recipe_of, tokenize
from knnlm.lm.model import create_model
from knnlm.lm.starting_point import add_names
from knnlm.lm.training import Journal, train
from knnlm.text.macondo.names import eligible_child_names, faker_names
from knnlm.text.macondo.town import SPLITS, count_children, generate_macondo
from knnlm.text.tokenizer import END_OF_DOCUMENT, train_tokenizer

PIECES = 600  # entries of the tokenizer: sentences as long as those in the corpus's tokens


def sentences(config: dict):
    """Return the three splits of a town in tokens, and the size of the vocabulary."""
    sizes = {key: config["macondo"][key] for key in ("villagers_per_count", "max_children")}
    names, needed = faker_names(), count_children(**sizes)
    children = eligible_child_names(names.given, child_names="added", needed=needed, encode=list)
    town = generate_macondo(seed=0, names=names, child_names=children, **sizes).examples
    bare = train_tokenizer(town["train"].tolist(), vocabulary_size=PIECES)
    tokenizer, added = add_names(bare, town["child"].tolist())
    end = tokenizer.token_to_id(END_OF_DOCUMENT)
    splits = {
        split: tokenize(tokenizer, town[split], town[f"{split}_start"], end_of_document=end)
        for split in SPLITS
    }
    name = config["models"]["base"]["tokenizer"]
    return splits, config["tokenizers"][name]["vocabulary_size"] + added


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = prepared_lm.settings()
    settings, fine_tuning = config["overspecification"], config["fine_tunings"]["base_random"]
    splits, vocabulary = sentences(config)
    model = create_model(config["models"][fine_tuning["shape"]], vocabulary_size=vocabulary, seed=0)
    training = Training(model, splits["train"], fine_tuning, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train(
            NextToken(model),
            recipe_of(fine_tuning, updates=arguments.updates, seed=0),
            batch_at=training.batches.batch,
            loss=mean_nll,
            journal=Journal(Path(folder), fine_tuning["save_every"], arguments.updates),
        )
        update = (time.process_time() - start) / arguments.updates
    start = time.process_time()
    for _ in range(arguments.evaluations):
        score_children(
            model,
            splits,
            site=settings["site"],
            k=settings["k"],
            temperatures=temperatures(settings),
        )
    evaluation = (time.process_time() - start) / arguments.evaluations
    updates, points = training.updates, settings["points"]
    lengths = splits["train"].lengths.mean()
    print_table(
        "Scoring as a fine-tuning on Macondo goes, 1 thread",
        [
            Row(
                f"CPU s of {points} evaluations, of {updates:,} updates",
                points * evaluation,
                updates * update,
                "<= 0.25",
            )
        ],
        f"{1e3 * update:.1f} ms an update of {fine_tuning['batch_size']} sentences of "
        f"{lengths:.1f} tokens; {evaluation:.2f} s an evaluation of LM and LM + kNN.",
    )


if __name__ == "__main__":
    main()
