"""Fine-tuning on short texts: tokens with padding, batches by arithmetic, the loss.

Each text begins with the end-of-document token and is padded on the right. A causal model never
looks at what follows, so the padding needs no mask, only to be left out of the loss.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from knnlm.lm.training import Recipe
from knnlm.runtime.seeds import numpy_generator

IGNORED = -100  # the label that torch and transformers leave out of a loss


@dataclass(frozen=True)
class Texts:
    """Tokenized texts of one split.

    Attributes:
        tokens: (n, T) int64, the end-of-document token first, padded with it.
        lengths: (n,) int64, tokens of each text with the first one, without the padding.
        answers: (n,) int64, the place of the one token that is asked for, such as a child's name.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    answers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def targets(self) -> NDArray[np.int64]:
        """The tokens that are asked for, (n,)."""
        return self.tokens[np.arange(len(self)), self.answers]

    @property
    def has_next(self) -> NDArray[np.bool_]:
        """Where a token has a next one in its text, (n, T): the entries of a datastore."""
        return np.arange(self.tokens.shape[1]) < self.lengths[:, None] - 1

    @property
    def before_answer(self) -> NDArray[np.bool_]:
        """Where the next token is the one that is asked for, (n, T), once in each row."""
        return np.arange(self.tokens.shape[1]) == self.answers[:, None] - 1

    def next_tokens(self, where: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the token after each place of a mask (n, T), row by row."""
        return np.roll(self.tokens, -1, axis=1)[where]


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], starts: Sequence[int], *, end_of_document: int
) -> Texts:
    """Return texts as tokens, with the place of the one token that begins at a character.

    Args:
        tokenizer: of the model.
        texts: at least one.
        starts: for each text the character at which the answer begins, behind a space.
        end_of_document: the token that begins each text.

    Raises:
        ValueError: if an answer does not begin with a token of its own.
    """
    encoded = [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    prefixes = [text[:start].rstrip(" ") for text, start in zip(texts, starts, strict=True)]
    before = [e.ids for e in tokenizer.encode_batch(prefixes, add_special_tokens=False)]
    for text, start, ids, prefix in zip(texts, starts, encoded, before, strict=True):
        if ids[: len(prefix)] != prefix or len(ids) == len(prefix):
            raise ValueError(
                f"expected a token to begin at character {start} of {text!r}, got tokens that "
                "go across it; set child_names to added in config.yaml"
            )
    lengths = np.array([1 + len(ids) for ids in encoded])
    tokens = np.full((len(texts), lengths.max()), end_of_document, dtype=np.int64)
    for row, ids in zip(tokens, encoded, strict=True):
        row[1 : 1 + len(ids)] = ids
    return Texts(tokens, lengths, np.array([1 + len(prefix) for prefix in before]))


class Epochs:
    """Shuffled batches of texts: each epoch takes every text once, the last batch may be small.

    A batch is a function of the seed and its number alone, so training can go on from any update.
    """

    def __init__(
        self,
        texts: Texts,
        *,
        batch_size: int,
        seed: int,
        positions: str,
        context: int,
        answers_only: bool = False,
    ) -> None:
        """Prepare the batches; nothing is drawn yet.

        Args:
            texts: what is trained on.
            batch_size: texts of a batch.
            seed: of the order and the offsets.
            positions: plain: texts begin at position 0; offset: at a random one that leaves
                room, so that no place in a sentence has a position of its own.
            context: positions of the model.
            answers_only: leave what stands before the answer out of the loss.

        Raises:
            ValueError: if a text is longer than the context.
        """
        if texts.lengths.max() > context:
            raise ValueError(
                f"expected texts of at most {context:,} tokens, the model's context, got one of "
                f"{texts.lengths.max():,}; use a model with a longer context"
            )
        self.texts, self.batch_size, self.seed = texts, batch_size, seed
        self.positions, self.context = positions, context
        self.first = texts.answers if answers_only else np.zeros_like(texts.answers)
        self.per_epoch = math.ceil(len(texts) / batch_size)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return input_ids, labels and, for offsets, position_ids, each (B, T) int64."""
        epoch, place = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            generator = numpy_generator(self.seed, "texts", epoch)
            self._order = (epoch, generator.permutation(len(self.texts)))
        rows = self._order[1][place * self.batch_size : (place + 1) * self.batch_size]
        lengths = self.texts.lengths[rows]
        tokens = self.texts.tokens[rows, : lengths.max()]
        places = np.arange(tokens.shape[1])
        counted = (places >= self.first[rows, None]) & (places < lengths[:, None])
        arrays = {"input_ids": tokens, "labels": np.where(counted, tokens, IGNORED)}
        if self.positions == "offset":
            generator = numpy_generator(self.seed, "offsets", number)
            offsets = generator.integers(self.context - len(places) + 1, size=(len(rows), 1))
            arrays["position_ids"] = places + offsets
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class NextToken(nn.Module):
    """The mean nll of labeled tokens given those before them; the head is computed for them alone.

    On short texts of different lengths that saves the part of the head's work that padding costs.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model, whose parameters these are; adapters may already be in it."""
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, labels: Tensor, position_ids: Tensor | None = None
    ) -> Tensor:
        """Return the mean nll, in nats, of the labels (B, T) that are not `IGNORED`."""
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False
        )[0]
        counted = labels[:, 1:] != IGNORED
        logits = self.model.get_output_embeddings()(hidden[:, :-1][counted])
        return functional.cross_entropy(logits.float(), labels[:, 1:][counted])


def mean_nll(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the loss of a batch of `Epochs`, for `train`; the module is a `NextToken`."""
    return module(**batch)


def recipe_of(settings: Mapping[str, Any], *, updates: int, seed: int) -> Recipe:
    """Return how a fine-tuning trains: linear warm-up, then linear decay to (almost) 0.

    Args:
        settings: optimizer, warmup (share of the updates, rounded up as the Trainer API of
            transformers does), clip_norm, precision.
        updates: of the whole training.
        seed: of dropout.
    """
    warmup_steps = math.ceil(settings["warmup"] * updates)
    return Recipe(
        steps=updates,
        optimizer=settings["optimizer"],
        schedule={"name": "linear", "warmup_steps": warmup_steps, "decay_share": 1.0},
        clip_norm=settings["clip_norm"],
        precision=settings["precision"],
        accumulation=1,
        seed=seed,
    )
