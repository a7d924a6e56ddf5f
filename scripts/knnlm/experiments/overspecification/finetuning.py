"""Fine-tuning on Macondo, with the likelihood of the children's names as it goes.

Chiang et al. (2024), Section 4.3 and Appendix C. The artifact holds the scores of every point of
the training, and for three of them (early, best on the held-out sentences, end) all that an MLP
in the place of the datastore needs; the fine-tuned weights themselves are not kept.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from knnlm.experiments.overspecification.names import FINE_TUNING as KIND
from knnlm.experiments.overspecification.names import neighbors_in_town, temperatures
from knnlm.experiments.overspecification.scores import find, read_states, score_children
from knnlm.experiments.shared.fine_tuning import FineTuning, Training
from knnlm.lm.anatomy import width
from knnlm.lm.finetuning import Texts, tokenize
from knnlm.lm.process import this_process
from knnlm.lm.starting_point import StartingPoint
from knnlm.lm.training import Evaluation
from knnlm.retrieval.datastore import in_memory
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.mlp_replacement import activation_of
from knnlm.runtime.artifacts import atomic_path, identity
from knnlm.runtime.making import Target, making
from knnlm.text.macondo.dataset import KIND as MACONDO
from knnlm.text.macondo.dataset import read_examples
from knnlm.text.macondo.town import SPLITS

LOG_ROWS = 100  # rows of the log, about
SCORES = tuple(f"{method}_{split}" for method in ("lm", "knn") for split in SPLITS)


def finetune_macondo(
    target: Target, fine_tuning: FineTuning, *, macondo: Path, scores: Mapping[str, Any]
) -> None:
    """Fine-tune a model on the over-specified sentences of a town and write its scores.

    The artifact (kind "macondo_fine_tuning") holds training.parquet (step, loss, lr and mean
    log-likelihoods), points/{step}.safetensors (see `score_children`: lm_{split}, knn_{split},
    mean_distance) and {early,best,end}.safetensors (those too, with keys, values, queries, the
    head, and of every token of the test sentences its key, its value and the log-probabilities
    lm_test_tokens and knn_test_tokens, the second at the fixed temperature).

    Args:
        target: the artifact.
        fine_tuning: what is trained, from which model.
        macondo: the town.
        scores: points, early, site, k, lmbda, temperature and oracle of the block
            `overspecification`.

    Raises:
        ValueError: if a model cannot be had, or a setting does not suit it.
    """
    settings, seed = dict(fine_tuning.settings), target.seed
    is_main = this_process().is_main_process
    with making(
        target,
        kind=KIND,
        made_from={"macondo": identity(macondo, kind=MACONDO), **fine_tuning.made_from()},
        settings={"fine_tuning": settings, "scores": dict(scores), "seed": seed},
        publishes=is_main,
    ) as made:
        examples = read_examples(macondo)
        point = fine_tuning.start(examples["child"].tolist(), seed=seed)
        splits = _tokenized(examples, point)
        training = Training(point.model, splits["train"], settings, seed=seed)
        points = evaluation_points(training.updates, count=scores["points"])
        watch = _Watch(made.folder, point.model, splits, settings=scores, points=points)
        log_every = math.ceil(training.updates / LOG_ROWS)
        training.run(made.folder, Evaluation(watch, points), log_every=log_every)
        if is_main:  # which alone has evaluated
            made.contents |= {
                "updates": training.updates,
                "per_epoch": training.per_epoch,
                "vocabulary_size": point.vocabulary,
                "names_added": point.names_added,
                **watch.contents(),
            }


def _tokenized(examples: pd.DataFrame, point: StartingPoint) -> dict[str, Texts]:
    return {
        split: tokenize(
            point.tokenizer,
            examples[split].tolist(),
            examples[f"{split}_start"].tolist(),
            end_of_document=point.end_of_document,
        )
        for split in SPLITS
    }


def evaluation_points(updates: int, *, count: int) -> list[int]:
    """Return the numbers of finished updates at which a training is scored, the last included."""
    return sorted({max(1, round(updates * (i + 1) / count)) for i in range(count)})


class _Watch:
    """The evaluation of a fine-tuning: writes a file for each point, and the three kept ones."""

    def __init__(
        self,
        partial: Path,
        model: nn.Module,
        splits: Mapping[str, Texts],
        *,
        settings: Mapping[str, Any],
        points: list[int],
    ) -> None:
        self.partial, self.model, self.splits = partial, model, splits
        self.settings, self.points = settings, points
        self.k = neighbors_in_town(settings["k"], children=len(splits["train"]))
        self.early = min(points, key=lambda step: abs(step - settings["early"] * points[-1]))

    def __call__(self, step: int) -> dict[str, float]:
        """Score the model after a number of updates; return the mean log-likelihoods."""
        settings = self.settings
        found = score_children(
            self.model,
            self.splits,
            site=settings["site"],
            k=self.k,
            temperatures=temperatures(settings),
        )
        save_tensors(self._file(step), {name: found[name] for name in (*SCORES, "mean_distance")})
        wanted = {"early": self.early, "best": self.best_until(step), "end": self.points[-1]}
        names = [name for name, at in wanted.items() if at == step]
        if names:
            found |= self._whole_test(found)
        for name in names:
            save_tensors(self.partial / f"{name}.safetensors", found)
        distance = {"mean_distance": float(found["mean_distance"][0])}
        return means(found, lmbda=settings["lmbda"]) | distance

    def _file(self, step: int) -> Path:
        return self.partial / "points" / f"{step:07d}.safetensors"

    def best_until(self, step: int) -> int:
        """Return the point, not after `step`, with the likeliest names in held-out sentences."""
        points = [point for point in self.points if point <= step]
        scores = [load_file(self._file(point))["lm_validation"].mean() for point in points]
        return points[int(np.argmax(scores))]

    def _whole_test(self, found: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the head, and of every token of the test sentences key, value and log-probability.

        Args:
            found: what `score_children` has found at this point; its entries are the datastore.
        """
        texts, settings = self.splits["test"], self.settings
        at, site = texts.has_next, settings["site"]
        states = read_states(self.model, texts, keys_at=at, scored_at=at, site=site)
        values = texts.next_tokens(at)
        neighbors = find(states.datastore_keys, in_memory(found["keys"], found["values"]), k=self.k)
        temperature = settings["temperature"] * float(found["mean_distance"][0])
        return {
            "head": _head(self.model).float().cpu().numpy(),
            "test_keys": states.datastore_keys,
            "test_values": values,
            "lm_test_tokens": states.log_probs,
            "knn_test_tokens": knn_log_probs(
                *neighbors, values.astype(np.int32), temperature=temperature
            ),
            **{f"targets_{split}": t.targets for split, t in self.splits.items()},
        }

    def contents(self) -> dict[str, Any]:
        """Return what the manifest says of the artifact."""
        texts = self.splits["train"]
        return {
            "points": self.points,
            "early": self.early,
            "best": self.best_until(self.points[-1]),
            "examples": len(texts),
            "entries": int(texts.has_next.sum()),
            "activation": activation_of(self.model),
        }


def _head(model: nn.Module) -> Tensor:
    """Return the head's matrix (V, d) as it acts, with rows that adapters keep elsewhere."""
    ones = torch.eye(width(model), device=model.device)
    return model.get_output_embeddings()(ones).T


def means(scores: Mapping[str, NDArray[np.float64]], *, lmbda: float) -> dict[str, float]:
    """Return the mean log-likelihood of each split, for the LM and for the fixed kNN-LM."""
    found = {}
    for split in SPLITS:
        lm = scores[f"lm_{split}"]
        found[f"lm_{split}"] = float(lm.mean())
        mixed = mix_log_probs(lm, scores[f"knn_{split}"][:, 0], lmbda)
        found[f"knn_lm_{split}"] = float(mixed.mean())
    return found


def save_tensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as one safetensors file, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, temporary)
