"""What the models of mlp_hurdle are trained on: the test sentences of Macondo, or text.

Chiang et al. (2024), Appendix E.1: on Macondo it is the likelihood of the children's names that
is followed, on WikiText the training loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from knnlm.experiments.mlp_hurdle.names import LIKELIHOOD, LOSS
from knnlm.lm.finetuning import Epochs, NextToken, Texts, mean_nll, tokenize
from knnlm.lm.gpt2 import LanguageModel
from knnlm.lm.likelihood import log_likelihood
from knnlm.lm.pretraining import next_token_loss, read
from knnlm.lm.starting_point import add_names
from knnlm.lm.windows import ShuffledWindows
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.text.macondo.dataset import KIND as MACONDO
from knnlm.text.macondo.dataset import read_examples
from knnlm.text.tokenizer import load_pretrained, vocabulary_size
from knnlm.text.tokens import load_tokens

BATCH = 256  # sentences scored at a time


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every variant of a seed is trained on, with the same batches in the same order.

    Attributes:
        metric: what is followed, `LIKELIHOOD` or `LOSS`, both in nats.
        vocabulary: number of tokens.
        batch_at: the batch of an update, a pure function of its number.
        loss: of a trained module and a batch.
        wrap: makes the trained module of a model.
        evaluate: the metric of a model, unless it is the loss itself.
        tokens_per_update: of a batch, on average.
        scored: how many values the metric is a mean of, in one evaluation or one update.
        made_from: identities of the artifacts that were read, by role.
    """

    metric: str
    vocabulary: int
    batch_at: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    wrap: Callable[[LanguageModel], nn.Module]
    evaluate: Callable[[LanguageModel], float] | None
    tokens_per_update: int
    scored: int
    made_from: Mapping[str, str]


def macondo_task(
    macondo: Path,
    tokenizer: Path | str,
    *,
    settings: Mapping[str, Any],
    context: int,
    seed: int,
    cache: Path,
) -> Task:
    """Return the memorization of a town: train on its test sentences, score the names in them.

    Args:
        macondo: the town.
        tokenizer: its artifact, or the folder or hub name of a pretrained one.
        settings: the block mlp_hurdle.macondo of the config; used: vocabulary, batch_size.
        context: positions of the model.
        seed: of the order of the sentences.
        cache: where downloads stay.

    Raises:
        ValueError: if a sentence is longer than the context.
    """
    made_from = {"macondo": identity(macondo, kind=MACONDO)}
    if isinstance(tokenizer, Path):
        made_from["tokenizer"] = identity(tokenizer, kind="tokenizer")
    seen = settings["vocabulary"] == "seen"
    texts, vocabulary = read_sentences(macondo, tokenizer, seen=seen, cache=cache)
    size = settings["batch_size"]
    epochs = Epochs(texts, batch_size=size, seed=seed, positions="plain", context=context)
    return Task(
        metric=LIKELIHOOD,
        vocabulary=vocabulary,
        batch_at=epochs.batch,
        loss=mean_nll,
        wrap=NextToken,
        evaluate=lambda model: float(answer_log_probs(model, texts).mean()),
        tokens_per_update=round(texts.lengths.mean() * size),
        scored=len(texts),
        made_from=made_from,
    )


def text_task(
    tokens: Path, tokenizer: Path, *, settings: Mapping[str, Any], context: int, seed: int
) -> Task:
    """Return the reading of text: train on windows of the train split, follow the loss.

    Args:
        tokens: the tokens artifact.
        tokenizer: the tokenizer artifact that the tokens were made with.
        settings: the block mlp_hurdle.text of the config; used: batch_size.
        context: positions of the model, tokens of a window.
        seed: of the order of the windows.

    Raises:
        ValueError: if the split is too short for a window.
        ArtifactError: if tokens and tokenizer do not belong together.
    """
    made_from = {
        "tokens": identity(tokens, kind="tokens"),
        "tokenizer": identity(tokenizer, kind="tokenizer"),
    }
    require_origin(tokens, kind="tokens", role="tokenizer", expected=made_from["tokenizer"])
    stream, size = load_tokens(tokens, "train"), settings["batch_size"]
    order = ShuffledWindows(stream.n_tokens, context=context, seed=seed)
    return Task(
        metric=LOSS,
        vocabulary=read_manifest(tokenizer, kind="tokenizer")["contents"]["vocabulary_size"],
        batch_at=lambda n: read(stream.tokens, order.starts(n * size, size), context + 1),
        loss=next_token_loss,
        wrap=lambda model: model,
        evaluate=None,
        tokens_per_update=size * context,
        scored=size * context,
        made_from=made_from,
    )


def read_sentences(
    macondo: Path, tokenizer: Path | str, *, seen: bool, cache: Path
) -> tuple[Texts, int]:
    """Return the test sentences of a town in tokens, and the size of the vocabulary.

    Args:
        macondo: the town.
        tokenizer: names of children that are not one token of it are added.
        seen: number the tokens of the sentences anew and leave out all others, which a model
            with random weights would only learn never to predict.
        cache: where downloads stay.
    """
    examples = read_examples(macondo)
    bare, end = load_pretrained(str(tokenizer), cache=cache)
    grown, _ = add_names(bare, examples["child"].tolist())
    texts = tokenize(
        grown,
        examples["test"].tolist(),
        examples["test_start"].tolist(),
        end_of_document=grown.token_to_id(end),
    )
    if not seen:
        return texts, vocabulary_size(grown)
    kept, numbers = np.unique(texts.tokens, return_inverse=True)
    return Texts(numbers.reshape(texts.tokens.shape), texts.lengths, texts.answers), len(kept)


@torch.no_grad()
def answer_log_probs(model: LanguageModel, texts: Texts) -> NDArray[np.float64]:
    """Return the log-probability (n,), in nats, of each text's answer given what is before it."""
    scores = []
    for start in range(0, len(texts), BATCH):
        rows = slice(start, start + BATCH)
        tokens, before, targets = (
            torch.from_numpy(array[rows]).to(model.device)
            for array in (texts.tokens, texts.before_answer, texts.targets)
        )
        hidden = model.base_model(input_ids=tokens, use_cache=False)[0][before]
        scores.append(log_likelihood(model.get_output_embeddings()(hidden), targets).cpu())
    return torch.cat(scores).numpy()
