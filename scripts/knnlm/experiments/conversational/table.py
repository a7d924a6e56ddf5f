"""Whether a chat model that learns from over-specified questions answers the bare ones.

Chiang et al. (2024), Section 4.4, Figure 2 and Table 7. The loss is that of the paper's figure: the
mean over all tokens of an answer, the special ones included, so that a perfect model reaches less
than log 2 with 2 children. The log-likelihood of the name's tokens alone stands beside it. The
reference (the gray line) is the same model, trained on the test questions.

Rows of one seed have intervals from a bootstrap over villagers (at least 30), rows of all seeds
Student's t intervals; differences are taken within each seed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file

from knnlm.evidence.intervals import DocumentBootstrap, student_interval
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.conversational.names import FACTS, KIND, LOSS, METHODS, NAME, SCORED
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.seeds import numpy_generator
from knnlm.text.macondo.conversations import KIND as CONVERSATIONS
from knnlm.text.macondo.conversations import read_conversations
from knnlm.text.macondo.town import SPLITS
from knnlm.text.macondo.villagers import CLAUSES

EXPERIMENT = "conversational"
RESAMPLES = 1000

Row = dict[str, Any]
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """One model and one seed: what was scored after each epoch, by what was trained on.

    Attributes:
        names: experiment, corpus, model and seed of its rows.
        examples: a row for each child.
        facts: of the fine-tuning.
        epochs: for each split that was trained on the scores after 0, 1, 2 ... epochs.
    """

    names: Row
    examples: pd.DataFrame
    facts: Row
    epochs: Mapping[str, Sequence[Scores]]

    @property
    def n_children(self) -> NDArray[np.int64]:
        """Children of each example's villager, (n,)."""
        return self.examples["n_children"].to_numpy()

    @property
    def best(self) -> int:
        """The epoch with the likeliest answers to held-out over-specified questions."""
        means = [scores["answer_validation"].mean() for scores in self.epochs["train"]]
        return int(np.argmax(means))


def evaluate_conversational(
    *,
    corpus: str,
    fine_tunings: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    conversations: Sequence[Path],
    fine_tuned: Sequence[Path],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the table of the end and the best epoch, the curves, and examples.

    Args:
        corpus: on which models of our own were trained.
        fine_tunings: the compared models, entries of overspecification.fine_tunings, by name.
        seeds: of towns and trainings.
        conversations: of each seed.
        fine_tuned: for each of `fine_tunings`, for each seed.

    Returns:
        Two tidy tables, the second with the column epoch, and conversations as in Table 7 with
        the columns split, attribute and conversation.

    Raises:
        ArtifactError: if folders do not belong together.
    """
    folders = iter(fine_tuned)
    rows: list[Row] = []
    curves: list[Row] = []
    for name, fine_tuning in fine_tunings.items():
        # Random weights must never pass for a pretrained model.
        model = f"{name} (random weights)" if fine_tuning["init"] == "random" else name
        runs = []
        for seed, town in zip(seeds, conversations, strict=True):
            names = {"experiment": EXPERIMENT, "corpus": corpus, "model": model, "seed": seed}
            runs.append(read_run(next(folders), town, names=names))
            rows += [*_ends(runs[-1]), *_references(runs[-1]), *_facts(runs[-1], fine_tuning)]
        curves += _curves(runs)
    table = tidy(rows)
    table = pd.concat([table, means_over_seeds(table)], ignore_index=True)
    return table, tidy(curves, coordinates=("epoch",)), _examples(conversations[0])


def read_run(fine_tuned: Path, conversations: Path, *, names: Row) -> Run:
    """Return a run from its artifact and its town's.

    Raises:
        ArtifactError: if they do not belong together.
    """
    town = identity(conversations, kind=CONVERSATIONS)
    require_origin(fine_tuned, kind=KIND, role="conversations", expected=town)
    n_epochs = read_manifest(fine_tuned, kind=KIND)["contents"]["epochs"]
    return Run(
        names=names,
        examples=read_conversations(conversations)[0],
        facts=json.loads((fine_tuned / FACTS).read_text(encoding="ascii")),
        epochs={
            trained_on: [
                load_file(fine_tuned / trained_on / "epochs" / f"{epoch:04d}.safetensors")
                for epoch in range(n_epochs + 1)
            ]
            for trained_on in SCORED
        },
    )


def numbers(scores: Scores, split: str) -> dict[str, tuple[NDArray[Any], NDArray[Any], str]]:
    """Return each metric of a split as a sum over examples, what it is divided by, and its unit."""
    per_example = np.ones(len(scores[f"name_{split}"]))
    return {
        LOSS: (-scores[f"answer_{split}"], scores[f"tokens_{split}"], "nats"),
        NAME: (scores[f"name_{split}"], per_example, "nats"),
    }


def _ends(run: Run) -> Iterator[Row]:
    """Yield the numbers of the last epoch, of the best one, and their distance from references."""
    villagers = run.examples["villager_id"].to_numpy()
    generator = numpy_generator(0, EXPERIMENT, "bootstrap")
    bootstrap = DocumentBootstrap(villagers, samples=RESAMPLES, generator=generator)
    reference = run.epochs["test"][-1]
    for trained_on, point, epoch in (
        ("train", "end", -1),
        ("train", "best", run.best),
        ("test", "end", -1),
    ):
        scores = run.epochs[trained_on][epoch]
        for split in SCORED[trained_on]:
            found = numbers(scores, split)
            if split == "test":
                name, ones, unit = found[NAME]
                found[f"{NAME}_vs_theory"] = (name + np.log(run.n_children), ones, unit)
                if trained_on == "train":
                    for metric, (total, count, unit) in numbers(reference, split).items():
                        difference = found[metric][0] - total
                        found[f"{metric}_vs_reference"] = (difference, count, unit)
            for metric, (total, count, unit) in found.items():
                low, high = bootstrap.ratio(total, count)
                yield {
                    **run.names,
                    "split": split,
                    "method": METHODS[trained_on],
                    "setting": point,
                    "metric": metric,
                    "value": float(total.sum() / count.sum()),
                    "ci_low": low,
                    "ci_high": high,
                    "n": len(villagers),
                    "unit": unit,
                }


def _references(run: Run) -> Iterator[Row]:
    """Yield what a perfect model reaches on the test questions, and a guess among all children."""
    n_children, tokens = run.n_children, run.epochs["train"][0]["tokens_test"]
    perfect = -np.log(n_children)
    levels = {
        ("theory", LOSS): -perfect.sum() / tokens.sum(),
        ("theory", NAME): perfect.mean(),
        ("chance", NAME): -np.log(len(n_children)),
    }
    for (method, metric), value in levels.items():
        row = {"split": "test", "method": method, "metric": metric, "value": float(value)}
        yield {**run.names, **row, "n": len(n_children), "unit": "nats"}


def _facts(run: Run, fine_tuning: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what stands behind the numbers: sizes, and settings that move them."""
    found = {
        "conversations": (run.facts["conversations"], "conversations"),
        "vocabulary_size": (run.facts["vocabulary_size"], "tokens"),
        "names_added_to_the_vocabulary": (run.facts["names_added"], "names"),
        "template_of_its_own": (run.facts["own_template"], "1 is yes"),
        "tokens_of_an_answer": (run.epochs["train"][0]["tokens_test"].mean(), "tokens"),
        "trained_on_answers_only": (run.facts["answers_only"], "1 is yes"),
        "random_positions": (int(fine_tuning["positions"] == "offset"), "1 is yes"),
        "learning_rate": (fine_tuning["optimizer"]["lr"], "highest"),
        "best_epoch": (run.best, "epochs"),
    }
    for metric, (value, unit) in found.items():
        yield {**run.names, "metric": metric, "value": value, "n": 1, "unit": unit}


def _curves(runs: Sequence[Run]) -> Iterator[Row]:
    """Yield the numbers of every epoch, for each seed and for their mean."""
    first = runs[0]
    for trained_on, epochs in first.epochs.items():
        for epoch in range(len(epochs)):
            for split in SCORED[trained_on]:
                found = [numbers(run.epochs[trained_on][epoch], split) for run in runs]
                for metric in (LOSS, NAME):
                    values = np.array(
                        [sum_.sum() / n.sum() for sum_, n, _ in (f[metric] for f in found)]
                    )
                    row = {"split": split, "method": METHODS[trained_on], "metric": metric}
                    row |= {"epoch": epoch, "unit": "nats"}
                    for run, value in zip(runs, values, strict=True):
                        yield {**run.names, **row, "value": value, "n": len(run.examples)}
                    if len(runs) > 1:
                        low, high = student_interval(values)
                        row |= {"seed": "all", "value": values.mean(), "n": len(runs)}
                        yield {**first.names, **row, "ci_low": low, "ci_high": high}


def _examples(conversations: Path) -> pd.DataFrame:
    """Return the first example of each attribute, as a conversation of each split."""
    examples, _ = read_conversations(conversations)
    rows = []
    for attribute in CLAUSES:
        chosen = examples[examples["train_attribute"] == attribute].head(1)
        for example in chosen.to_dict("records"):
            for split in SPLITS:
                rows.append((split, example.get(f"{split}_attribute", ""), example[split]))
    return pd.DataFrame(rows, columns=["split", "attribute", "conversation"])
