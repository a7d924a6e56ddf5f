"""Tokenizers: a byte-level BPE trained on the train split, or a pretrained one.

Both become a folder with tokenizer.json, which the `tokenizers` library reads without
transformers, and tokenizer_config.json, with which `AutoTokenizer` reads it too.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import ByteLevel as ByteLevelOffsets
from tokenizers.trainers import BpeTrainer

from knnlm.runtime.artifacts import atomic_path, copy_file, identity, read_manifest, save_json
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, making
from knnlm.text.documents import read_documents
from knnlm.text.hub import fetch

END_OF_DOCUMENT = "<|endoftext|>"  # GPT-2's name for it
CHAT_TEMPLATE_FILE = "chat_template.jinja"
# What is kept of the config of a pretrained tokenizer.
DECLARED = ("bos_token", "unk_token", "pad_token", "chat_template")
SMALLEST_VOCABULARY = 257  # every byte, and the end-of-document token
PART_CHARACTERS = 1 << 20  # longest text encoded in one go: an encoding costs 150 bytes a token
# A space after a letter or digit begins a new piece in the patterns of GPT-2 and Llama 3.
CUT = re.compile(r"(?<=[^\W_]) ")


def build_tokenizer(
    target: Target, *, text: Path | None, tokenizer: dict[str, Any], cache: Path
) -> None:
    """Write a tokenizer artifact: trained on the train split of a text, or pretrained.

    Args:
        target: the artifact.
        text: the text artifact; a pretrained tokenizer needs none.
        tokenizer: its block in the config; `source` is trained or pretrained.
        cache: where downloads stay.

    Raises:
        ValueError: if the vocabulary is too small, or the pretrained one cannot be had.
    """
    declared = {}
    if tokenizer["source"] == "trained":
        assert text is not None, f"{target.output} is to be trained, on no text"
        made_from = {"text": identity(text, kind="text")}
        built = train_tokenizer(
            read_documents(text, "train"), vocabulary_size=tokenizer["vocabulary_size"]
        )
        end = END_OF_DOCUMENT
    else:
        made_from = {}
        built, end, declared = _load(tokenizer["model"], cache=cache)
    with making(target, kind="tokenizer", made_from=made_from, settings=tokenizer) as made:
        save_tokenizer(made.folder, built, end_of_document=end, declared=declared)
        made.contents |= {
            "vocabulary_size": vocabulary_size(built),
            "end_of_document": built.token_to_id(end),
        }
    LOGGER.info("tokenizer: %s; documents begin with %s", made.contents, end)


def train_tokenizer(documents: Iterable[str], *, vocabulary_size: int) -> Tokenizer:
    """Return a byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2) trained on documents.

    The same documents give the same tokenizer. It has no prefix space and no normalization, so
    decoding gives every text back byte for byte.

    Args:
        documents: the training text.
        vocabulary_size: entries wanted, with the 256 bytes and the end-of-document token; a text
            with fewer repeated pairs gives fewer.

    Raises:
        ValueError: if the vocabulary cannot hold every byte.
    """
    if vocabulary_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"expected tokenizer.vocabulary_size to be at least {SMALLEST_VOCABULARY} (256 bytes "
            f"and the end of a document), got {vocabulary_size}"
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = ByteLevelOffsets(trim_offsets=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (part for document in documents for part in parts(document))
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def load_pretrained(model: str, *, cache: Path) -> tuple[Tokenizer, str]:
    """Return a pretrained tokenizer and its end-of-document token.

    Args:
        model: a folder with tokenizer.json, or the name of a model on the hub.
        cache: where downloads stay.

    Raises:
        ValueError: if it is neither in the cache nor on the hub, has no tokenizer.json, or no
            token that ends a text.
    """
    tokenizer, end, _ = _load(model, cache=cache)
    return tokenizer, end


def _load(model: str, *, cache: Path) -> tuple[Tokenizer, str, dict[str, Any]]:
    """Return a pretrained tokenizer, its end-of-document token and what its config declares."""
    folder = fetch(
        model,
        kind="model",
        revision="main",
        name="tokenizer",
        patterns=["tokenizer.json", "tokenizer_config.json", CHAT_TEMPLATE_FILE],
        cache=cache,
        remedy="train a tokenizer (source: trained, vocabulary_size: 4096) or give a local folder "
        "with tokenizer.json",
    )
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"expected {folder} to hold tokenizer.json, got "
            f"{sorted(path.name for path in folder.iterdir())}; save the tokenizer once with "
            "save_pretrained of transformers, or train one"
        )
    tokenizer = read_tokenizer(folder)
    config, template = folder / "tokenizer_config.json", folder / CHAT_TEMPLATE_FILE
    declared = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if template.is_file():
        declared["chat_template"] = template.read_text(encoding="utf-8")
    end = declared.get("eos_token") or END_OF_DOCUMENT
    end = end["content"] if isinstance(end, dict) else end
    if tokenizer.token_to_id(end) is None:
        raise ValueError(
            f"expected the tokenizer {model} to have a token that ends a text, got no eos_token "
            f"in {config} and no {END_OF_DOCUMENT} in its vocabulary; name one as eos_token there"
        )
    return tokenizer, end, declared


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder, set to encode any text as it stands.

    Nothing is cut or padded, and text that spells a special token is text: an article that
    mentions "<|endoftext|>" does not end there.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def save_tokenizer(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    end_of_document: str,
    declared: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write tokenizer.json and tokenizer_config.json, the latter for `AutoTokenizer`.

    Args:
        folder: gets the files.
        tokenizer: what is saved.
        end_of_document: its token.
        declared: what a pretrained tokenizer's own config says; special tokens and the chat
            template are kept.
    """
    with atomic_path(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    kept = {name: declared[name] for name in DECLARED if declared.get(name)}
    save_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end_of_document,
            "eos_token": end_of_document,
            "clean_up_tokenization_spaces": False,
            **kept,
        },
    )


def copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    """Copy the files of a tokenizer artifact into the folder of its model."""
    for name in read_manifest(tokenizer, kind="tokenizer")["files"]:
        copy_file(tokenizer / name, folder / name)


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return the rows that an embedding needs: the largest id and one."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def parts(document: str) -> Iterator[str]:
    """Yield a document in parts of about `PART_CHARACTERS`, whole if it is shorter.

    Parts begin with a space that follows a letter or digit, where a byte-level BPE begins a new
    piece anyway: their tokens, joined, are those of the whole document.
    """
    start = 0
    while cut := CUT.search(document, start + PART_CHARACTERS):
        yield document[start : cut.start()]
        start = cut.start()
    yield document[start:]


def add_words(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """Return a tokenizer in which each word, after a space, is one token.

    Chiang et al. (2023) give every child of Macondo a name of one token. The words join the
    vocabulary of the BPE itself, so a longer word that begins with one of them keeps its own
    tokens, and every text is still given back by decoding.

    Args:
        tokenizer: a BPE with a pre-tokenizer; it stays as it is.
        words: what to add; words that are one token already are left alone.

    Raises:
        ValueError: if the tokenizer is no BPE, or a word would be cut before the BPE sees it.
    """
    state = json.loads(tokenizer.to_str())
    if state["model"]["type"] != "BPE" or tokenizer.pre_tokenizer is None:
        raise ValueError(
            "expected a BPE with a pre-tokenizer, got a tokenizer of type "
            f"{state['model']['type']}; train one (tokenizer: {{source: trained}})"
        )
    following = vocabulary_size(tokenizer)
    for word in words:
        pieces = tokenizer.pre_tokenizer.pre_tokenize_str(f" {word}")
        if len(pieces) != 1:
            raise ValueError(
                f"expected a word of letters alone, got {word!r}, which is cut into "
                f"{len(pieces)} pieces; choose another word"
            )
        piece = pieces[0][0]
        if piece not in state["model"]["vocab"]:
            state["model"]["vocab"][piece] = following
            following += 1
    # A piece that is in the vocabulary is its own token, whatever the merges would make of it.
    state["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(state))
