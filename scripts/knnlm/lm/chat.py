"""Conversations as a chat model reads them: in its own template, scored on the answers alone.

A model without a template gets the minimal one of `knnlm.text.macondo.chat`. The tokens of an
answer are its words and the special token that ends it, as fine-tuning services count their loss.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import nn

from knnlm.lm.finetuning import Texts
from knnlm.lm.likelihood import log_likelihood
from knnlm.text.hub import fetch
from knnlm.text.macondo.chat import CHAT_TEMPLATE, Message
from knnlm.text.tokenizer import CHAT_TEMPLATE_FILE

BATCH = 32  # texts scored at a time
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class ChatTemplate:
    """How messages become one text.

    Attributes:
        source: in Jinja.
        special_tokens: what the template may ask for, such as bos_token.
    """

    source: str
    special_tokens: dict[str, str]

    def render(self, messages: Sequence[Message], *, prompt_only: bool = False) -> str:
        """Return a conversation, or the part of it before the last answer, without line ends."""
        # Imported here: a second that no job without a chat needs to spend.
        from transformers.utils.chat_template_utils import render_jinja_template

        shown = list(messages[:-1] if prompt_only else messages)
        texts, _ = render_jinja_template(
            conversations=[shown],
            chat_template=self.source,
            add_generation_prompt=prompt_only,
            **self.special_tokens,
        )
        return texts[0] if prompt_only else texts[0].rstrip()


@dataclass(frozen=True)
class Chats:
    """Tokenized conversations of one split.

    Attributes:
        texts: the tokens; its `answers` are the places of the first token of each answer.
        names: (n, T), where the tokens of the child's name stand, with which an answer begins.
    """

    texts: Texts
    names: NDArray[np.bool_]

    @property
    def answers(self) -> NDArray[np.bool_]:
        """Where the tokens of the answers stand, the special ones included, (n, T)."""
        places = np.arange(self.texts.tokens.shape[1])
        return (places >= self.texts.answers[:, None]) & (places < self.texts.lengths[:, None])


def chat_folder(model: str, *, cache: Path) -> Path:
    """Return the folder with a pretrained model's tokenizer and template, see `fetch`."""
    return fetch(
        model,
        kind="model",
        revision="main",
        name="chat",
        patterns=["tokenizer.json", "tokenizer_config.json", CHAT_TEMPLATE_FILE],
        cache=cache,
        remedy="name a local folder with the model and its tokenizer.json",
    )


def read_chat_template(folder: Path) -> ChatTemplate:
    """Return the template of a tokenizer's folder, or the minimal one if it has none."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    own = folder / CHAT_TEMPLATE_FILE
    source = own.read_text(encoding="utf-8") if own.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    special = {name: config[name] for name in SPECIAL_TOKENS if config.get(name)}
    special = {name: t["content"] if isinstance(t, dict) else t for name, t in special.items()}
    return ChatTemplate(source or CHAT_TEMPLATE, special)


def tokenize_chats(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    conversations: Sequence[Sequence[Message]],
    children: Sequence[str],
    *,
    end_of_text: int,
) -> Chats:
    """Return conversations as tokens.

    Where the template writes no special token at the beginning or at the end, the token that ends
    a text stands there, as between the documents that a model of our own was trained on.

    Args:
        tokenizer: of the model; set to read text that spells a special token as that token.
        template: of the model.
        conversations: a question and an answer each, at least one.
        children: the names with which the answers begin.
        end_of_text: the token that ends a text.

    Raises:
        ValueError: if the template does not write a question the same way without its answer.
    """
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    special.add(end_of_text)
    tokenizer.encode_special_tokens = False
    rows, first, named = [], [], []
    for messages, child in zip(conversations, children, strict=True):
        text, prompt = template.render(messages), template.render(messages, prompt_only=True)
        if not text.startswith(prompt):
            raise ValueError(
                "expected a chat template that writes a question the same way with and without "
                f"its answer, got {prompt!r} and {text!r}; use a model with another template"
            )
        encoding = tokenizer.encode(text, add_special_tokens=False)
        begins = [] if encoding.ids[0] in special else [end_of_text]
        ends = [] if encoding.ids[-1] in special else [end_of_text]
        end = text.index(child, len(prompt)) + len(child)
        start, stop = _name_in(encoding, after=len(prompt), end=end)
        rows.append([*begins, *encoding.ids, *ends])
        first.append(len(begins) + start)
        named.append(len(begins) + stop)
    lengths = np.array([len(row) for row in rows])
    tokens = np.full((len(rows), lengths.max()), end_of_text, dtype=np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    answers = np.array(first)
    places = np.arange(tokens.shape[1])
    names = (places >= answers[:, None]) & (places < np.array(named)[:, None])
    return Chats(Texts(tokens, lengths, answers), names)


def _name_in(encoding: Encoding, *, after: int, end: int) -> tuple[int, int]:
    """Return the first token that goes beyond `after` and the first one from `end` on."""
    start = next(i for i, (_, stop) in enumerate(encoding.offsets) if stop > after)
    following = (i for i, (begin, _) in enumerate(encoding.offsets) if begin >= end)
    return start, next(following, len(encoding))


@torch.no_grad()
def score_answers(model: nn.Module, chats: Chats) -> NDArray[np.float64]:
    """Return the log-likelihood of each token of the answers, in nats, and 0 elsewhere, (n, T).

    Args:
        model: in eval mode.
        chats: they begin at position 0.
    """
    texts, wanted = chats.texts, chats.answers
    scores = np.zeros(wanted.shape)
    for start in range(0, len(texts), BATCH):
        rows = slice(start, start + BATCH)
        longest = texts.lengths[rows].max()
        tokens = torch.from_numpy(texts.tokens[rows, :longest]).to(model.device)
        at = torch.from_numpy(wanted[rows, 1:longest]).to(model.device)
        hidden = model.base_model(input_ids=tokens, use_cache=False)[0]
        logits = model.get_output_embeddings()(hidden[:, :-1][at])
        found = log_likelihood(logits, tokens[:, 1:][at])
        scores[rows, :longest][wanted[rows, :longest]] = found.cpu().numpy()
    return scores
