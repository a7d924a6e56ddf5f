"""The frame of a fine-tuning on the texts of a town: where it starts, its training, its log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from knnlm.lm.anatomy import context
from knnlm.lm.finetuning import Epochs, NextToken, Texts, mean_nll, recipe_of
from knnlm.lm.process import this_process
from knnlm.lm.starting_point import StartingPoint, starting_point
from knnlm.lm.training import STATE, Evaluation, Journal, train
from knnlm.runtime.artifacts import atomic_path, identity

LOG = "training.parquet"  # step, loss, lr and what the evaluations return; written last


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A fine-tuning as its rule describes it.

    Attributes:
        settings: an entry of `fine_tunings` in the config.
        model: the artifact of one of our models, if it starts from one.
        tokenizer: the artifact of our tokenizer, if the model uses it.
        shape: of random weights: a block of `models`, or the name of a pretrained model.
        cache: where downloads stay.
    """

    settings: Mapping[str, Any]
    model: Path | None
    tokenizer: Path | None
    shape: Mapping[str, Any] | str | None
    cache: Path

    @classmethod
    def of(cls, job: Any) -> "FineTuning":
        """Return the fine-tuning that a Snakemake job is for."""
        model, tokenizer = job.input.model, job.input.tokenizer
        return cls(
            settings=job.params.fine_tuning,
            model=Path(model) if model else None,
            tokenizer=Path(tokenizer) if tokenizer else None,
            shape=job.params.shape,
            cache=Path("data/downloads"),
        )

    @property
    def pretrained(self) -> str:
        """Folder or hub name of the pretrained model that has the vocabulary, if none is ours."""
        return str(self.shape if self.settings["init"] == "random" else self.settings["init"])

    def made_from(self) -> dict[str, str]:
        """Return the identity of the model that it starts from, if that is an artifact."""
        return {} if self.model is None else {"model": identity(self.model, kind="model")}

    def start(
        self, names: Sequence[str], *, seed: int, vocabulary: Path | None = None
    ) -> StartingPoint:
        """Return the model before the fine-tuning, with names joined to its vocabulary.

        Args:
            names: to be one token each.
            seed: of everything that is drawn.
            vocabulary: folder of the tokenizer; None looks for it itself.

        Raises:
            ValueError: if a model cannot be had, or a setting does not suit it.
        """
        return starting_point(
            vocabulary=vocabulary or self.tokenizer or self.pretrained,
            names=names,
            model=self.model,
            fine_tuning=self.settings,
            shape=self.shape,
            seed=seed,
            cache=self.cache,
        )


class Training:
    """The training of a model on the texts of one split."""

    def __init__(
        self,
        model: nn.Module,
        texts: Texts,
        settings: Mapping[str, Any],
        *,
        seed: int,
        answers_only: bool = False,
    ) -> None:
        """Prepare the batches; nothing is trained yet.

        Args:
            model: trained in place.
            texts: of the split.
            settings: an entry of `fine_tunings` in the config.
            seed: of order, positions and dropout.
            answers_only: leave what stands before the answer out of the loss.

        Raises:
            ValueError: if a text is longer than the model's context.
        """
        self.model, self.texts, self.settings, self.seed = model, texts, settings, seed
        self.batches = Epochs(
            texts,
            batch_size=settings["batch_size"],
            seed=seed,
            positions=settings["positions"],
            context=context(model),
            answers_only=answers_only,
        )
        self.per_epoch = self.batches.per_epoch
        self.updates = settings["epochs"] * self.per_epoch

    def run(self, folder: Path, evaluation: Evaluation, *, log_every: int) -> None:
        """Train and write the log; do nothing where the log is there already.

        Args:
            folder: of the log, and of the state that a killed training goes on from.
            evaluation: what joins the log.
            log_every: updates between two rows of the log.
        """
        if (folder / LOG).is_file():
            return
        rows = train(
            NextToken(self.model),
            recipe_of(self.settings, updates=self.updates, seed=self.seed),
            batch_at=self.batches.batch,
            loss=mean_nll,
            journal=Journal(
                folder,
                self.settings["save_every"],
                log_every,
                int(self.texts.lengths.mean() * self.settings["batch_size"]),
            ),
            evaluation=evaluation,
        )
        if this_process().is_main_process:
            with atomic_path(folder / LOG) as temporary:
                pd.DataFrame(rows).to_parquet(temporary, index=False)
            (folder / STATE).unlink(missing_ok=True)
