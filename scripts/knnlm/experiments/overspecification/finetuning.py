"""Fine-tuning on Macondo, with the likelihood of the children's names as it goes.

Chiang et al. (2024), Section 4.3 and Appendix C. The artifact holds the scores of every point of
the training, and for three of them (early, best on the held-out sentences, end) all that an MLP
in the place of the datastore needs; the fine-tuned weights themselves are not kept.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from knnlm.experiments.overspecification.names import FINE_TUNING as KIND
from knnlm.experiments.overspecification.names import temperatures
from knnlm.experiments.overspecification.scores import read_states, score_children
from knnlm.lm.anatomy import context, width
from knnlm.lm.finetuning import Epochs, NextToken, Texts, mean_nll, recipe_of, tokenize
from knnlm.lm.process import this_process
from knnlm.lm.starting_point import StartingPoint, starting_point
from knnlm.lm.training import STATE, Evaluation, Journal, train
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mlp_replacement import activation_of
from knnlm.runtime.artifacts import atomic_path, identity, write_manifest
from knnlm.runtime.making import partial_folder, publish
from knnlm.text.macondo.dataset import KIND as MACONDO
from knnlm.text.macondo.dataset import read_examples
from knnlm.text.macondo.town import SPLITS

LOG = "training.parquet"
LOG_ROWS = 100  # rows of the log, about
SCORES = tuple(f"{method}_{split}" for method in ("lm", "knn") for split in SPLITS)


def finetune_macondo(
    *,
    output: Path,
    fingerprint: str,
    macondo: Path,
    model: Path | None,
    tokenizer: Path | None,
    fine_tuning: Mapping[str, Any],
    shape: Mapping[str, Any] | str | None,
    scores: Mapping[str, Any],
    seed: int,
    cache: Path,
) -> None:
    """Fine-tune a model on the over-specified sentences of a town and write its scores.

    The artifact (kind "macondo_fine_tuning") holds training.parquet (step, loss, lr and mean
    log-likelihoods), points/{step}.safetensors (see `score_children`: lm_{split}, knn_{split},
    mean_distance) and {early,best,end}.safetensors (those too, with keys, values, queries, the
    head, and every token of the test sentences).

    Args:
        output: the artifact.
        fingerprint: of the rule.
        macondo: the town.
        model: the artifact of one of our models, if the fine-tuning starts from it.
        tokenizer: the artifact of our tokenizer, if the model uses it.
        fine_tuning: an entry of overspecification.fine_tunings in the config.
        shape: of random weights: a block of `models`, or a name.
        scores: points, early, site, k, lmbda, temperature and oracle of the block
            `overspecification`.
        seed: of everything that is drawn.
        cache: where downloads stay.

    Raises:
        ValueError: if a model cannot be had, or a setting does not suit it.
    """
    made_from = {"macondo": identity(macondo, kind=MACONDO)}
    if model is not None:
        made_from["model"] = identity(model, kind="model")
    partial = partial_folder(output, fingerprint, made_from)
    examples = read_examples(macondo)
    init = fine_tuning["init"]
    point = starting_point(
        vocabulary=tokenizer or (shape if init == "random" else init),
        names=examples["child"].tolist(),
        model=model,
        fine_tuning=fine_tuning,
        shape=shape,
        seed=seed,
        cache=cache,
    )
    start = _Start(point, _tokenized(examples, point))
    contents = _train(partial, start, fine_tuning=fine_tuning, settings=scores, seed=seed)
    if not this_process().is_main_process:
        return
    (partial / STATE).unlink(missing_ok=True)
    write_manifest(
        partial,
        kind=KIND,
        settings={"fine_tuning": dict(fine_tuning), "scores": dict(scores), "seed": seed},
        made_from=made_from,
        contents=contents,
    )
    publish(partial, output)


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


class _Start(NamedTuple):
    """A model before its fine-tuning, and the sentences in its tokens."""

    point: StartingPoint
    splits: dict[str, Texts]

    @property
    def model(self) -> nn.Module:
        """The model that is fine-tuned."""
        return self.point.model


def _train(
    partial: Path,
    start: _Start,
    *,
    fine_tuning: Mapping[str, Any],
    settings: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Fine-tune, write the scores of every point and the log, return what the manifest says."""
    texts = start.splits["train"]
    epochs = Epochs(
        texts,
        batch_size=fine_tuning["batch_size"],
        seed=seed,
        positions=fine_tuning["positions"],
        context=context(start.model),
    )
    updates = fine_tuning["epochs"] * epochs.per_epoch
    points = evaluation_points(updates, count=settings["points"])
    watch = _Watch(partial, start, settings=settings, points=points)
    log, described = partial / LOG, {"updates": updates, "per_epoch": epochs.per_epoch}
    if log.is_file():  # written last
        return watch.contents() | described
    rows = train(
        NextToken(start.model),
        recipe_of(fine_tuning, updates=updates, seed=seed),
        batch_at=epochs.batch,
        loss=mean_nll,
        journal=Journal(
            partial,
            save_every=fine_tuning["save_every"],
            log_every=math.ceil(updates / LOG_ROWS),
            tokens_per_update=int(texts.lengths.mean() * fine_tuning["batch_size"]),
        ),
        evaluation=Evaluation(watch, at=points),
    )
    with atomic_path(log) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    return watch.contents() | described


class _Watch:
    """The evaluation of a fine-tuning: writes a file for each point, and the three kept ones."""

    def __init__(
        self, partial: Path, start: _Start, *, settings: Mapping[str, Any], points: list[int]
    ) -> None:
        self.partial, self.start, self.settings, self.points = partial, start, settings, points
        self.early = min(points, key=lambda step: abs(step - settings["early"] * points[-1]))

    def __call__(self, step: int) -> dict[str, float]:
        """Score the model after a number of updates; return the mean log-likelihoods."""
        settings = self.settings
        found = score_children(
            self.start.model,
            self.start.splits,
            site=settings["site"],
            k=settings["k"],
            temperatures=temperatures(settings),
        )
        save_tensors(self._file(step), {name: found[name] for name in (*SCORES, "mean_distance")})
        wanted = {"early": self.early, "best": self.best_until(step), "end": self.points[-1]}
        names = [name for name, at in wanted.items() if at == step]
        if names:
            found |= self._whole_test()
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

    def _whole_test(self) -> dict[str, NDArray[Any]]:
        """Return the head, and keys, values and log p_LM of every token of the test sentences."""
        model, texts = self.start.model, self.start.splits["test"]
        at = texts.has_next
        states = read_states(model, texts, keys_at=at, scored_at=at, site=self.settings["site"])
        return {
            "head": _head(model).float().cpu().numpy(),
            "test_keys": states.datastore_keys,
            "test_values": texts.next_tokens(at),
            "test_lm": states.log_probs,
            **{f"targets_{split}": t.targets for split, t in self.start.splits.items()},
        }

    def contents(self) -> dict[str, Any]:
        """Return what the manifest says of the artifact."""
        train_texts = self.start.splits["train"]
        return {
            "points": self.points,
            "early": self.early,
            "best": self.best_until(self.points[-1]),
            "examples": len(train_texts),
            "entries": int(train_texts.has_next.sum()),
            "vocabulary_size": self.start.point.vocabulary,
            "names_added": self.start.point.names_added,
            "activation": activation_of(self.start.model),
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
