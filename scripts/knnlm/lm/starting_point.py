"""Where a fine-tuning starts: the weights, a vocabulary that has every name, and adapters."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn

from knnlm.lm.architecture import architecture_of
from knnlm.lm.gpt2 import LanguageModel
from knnlm.lm.model import ATTENTION, create_model, load_model, transformers
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.seeds import derive_seed, numpy_generator
from knnlm.text.hub import fetch
from knnlm.text.tokenizer import add_words, load_pretrained, vocabulary_size

# The embedding matrix, the projections of attention and those of the MLPs, by `model_type`:
# Chiang et al. (2024), Appendix C.1.
_LLAMA = (
    "embed_tokens",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
LORA_TARGETS = {"gpt2": ("wte", "c_attn", "c_proj", "c_fc"), "llama": _LLAMA, "mistral": _LLAMA}


@dataclass(frozen=True)
class StartingPoint:
    """A model before its fine-tuning, and a tokenizer that has every name it needs.

    Attributes:
        model: with a row for each entry of the tokenizer.
        tokenizer: of the model, with the names.
        end_of_document: its token.
        names_added: names that were no token before.
        new_tokens: their ids.
    """

    model: nn.Module
    tokenizer: Tokenizer
    end_of_document: int
    names_added: int
    new_tokens: range

    @property
    def vocabulary(self) -> int:
        """The number of entries of the tokenizer."""
        return self.new_tokens.stop


def starting_point(
    *,
    vocabulary: Path | str,
    names: Sequence[str],
    model: Path | None,
    fine_tuning: Mapping[str, Any],
    shape: Mapping[str, Any] | str | None,
    seed: int,
    cache: Path,
) -> StartingPoint:
    """Return the model that a fine-tuning starts from, with names joined to its vocabulary.

    Args:
        vocabulary: artifact, folder or hub name of the model's tokenizer.
        names: to be one token each after a space; none leaves the tokenizer as it is.
        model: the artifact of one of our models, if the fine-tuning starts from it.
        fine_tuning: an entry of fine_tunings in the config; used: init, lora.
        shape: of random weights: a block of `models`, or a name.
        seed: of everything that is drawn.
        cache: where downloads stay.

    Raises:
        ValueError: if a model cannot be had, or a setting does not suit it.
    """
    bare, end = load_pretrained(str(vocabulary), cache=cache)
    tokenizer, added = add_names(bare, names)
    new_tokens = range(vocabulary_size(bare), vocabulary_size(tokenizer))
    init = fine_tuning["init"]
    network = starting_model(
        weights=None if init == "random" else model or init,
        shape=shape,
        vocabulary=new_tokens.stop,
        seed=seed,
        cache=cache,
    )
    if fine_tuning["lora"] is not None:
        add_lora(network, fine_tuning["lora"], new_tokens=new_tokens, seed=seed)
    LOGGER.info("%s names joined a vocabulary of %s tokens", added, f"{new_tokens.start:,}")
    return StartingPoint(network, tokenizer, tokenizer.token_to_id(end), added, new_tokens)


def starting_model(
    *,
    weights: Path | str | None,
    shape: Mapping[str, Any] | str | None,
    vocabulary: int,
    seed: int,
    cache: Path,
) -> nn.Module:
    """Return a model with trained or random weights and a vocabulary that is large enough.

    Args:
        weights: folder or hub name of a trained model; None draws random ones.
        shape: of random weights: a block of `models` in the config, or the folder or hub name of
            a pretrained model, of which only config.json is read.
        vocabulary: entries of the tokenizer; missing rows are added, see `grow_vocabulary`.
        seed: of random weights and of added rows.
        cache: where the config of a shape from the hub stays.

    Raises:
        ValueError: if a model cannot be had, or is of an unknown architecture.
    """
    if weights is not None:
        model = load_model(weights)
    elif isinstance(shape, Mapping):
        return create_model(dict(shape), vocabulary_size=vocabulary, seed=seed)
    else:
        model = _random_model(str(shape), seed=seed, cache=cache)
    grow_vocabulary(model, vocabulary, seed=seed)
    return model


def _random_model(shape: str, *, seed: int, cache: Path) -> nn.Module:
    folder = fetch(
        shape,
        kind="model",
        revision="main",
        name="config",
        patterns=["config.json"],
        cache=cache,
        remedy="name one of `models` as the shape, or a folder with config.json",
    )
    library = transformers()
    config = library.AutoConfig.from_pretrained(folder)
    architecture_of(config.model_type)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        model = library.AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
        return model.eval()


def add_names(tokenizer: Tokenizer, names: Sequence[str]) -> tuple[Tokenizer, int]:
    """Return a tokenizer in which every name, after a space, is one token, and how many it added.

    Names that are one token already stay as they are. Where the vocabulary of the BPE cannot take
    a word (SentencePiece without a pre-tokenizer), it is cut out of the text before the BPE.

    Args:
        tokenizer: it stays as it is.
        names: distinct.
    """
    missing = [name for name in names if not _is_one_token(tokenizer, name)]
    if not missing:
        return tokenizer, 0
    grown = Tokenizer.from_str(tokenizer.to_str())
    if tokenizer.pre_tokenizer is not None:
        grown = add_words(tokenizer, missing)
    if not all(_is_one_token(grown, name) for name in missing):
        grown = Tokenizer.from_str(tokenizer.to_str())
        grown.add_tokens(
            [AddedToken(name, single_word=True, lstrip=True, normalized=False) for name in missing]
        )
    return grown, len(missing)


def _is_one_token(tokenizer: Tokenizer, name: str, *, before: str = "of") -> bool:
    context = tokenizer.encode(before, add_special_tokens=False).ids
    both = tokenizer.encode(f"{before} {name}", add_special_tokens=False).ids
    return both[:-1] == context


def grow_vocabulary(model: nn.Module, size: int, *, seed: int) -> None:
    """Add rows to the embedding and the head until there is one for each entry, in place.

    A new row is the mean of the old ones plus noise of the scale of random weights (normal,
    `initializer_range`), so that a new token is at first neither likely nor unlikely.

    Args:
        model: tied or not.
        size: entries of the tokenizer.
        seed: of the noise.
    """
    old = len(model.get_input_embeddings().weight)
    if size <= old:
        return
    if isinstance(model, LanguageModel):
        model.resize_token_embeddings(size)
    else:
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(size, mean_resizing=False)
    std = model.config.initializer_range
    _fill(model.get_input_embeddings().weight, old, std=std, seed=seed, purpose="embedding")
    head = model.get_output_embeddings().weight
    if head is not model.get_input_embeddings().weight:
        _fill(head, old, std=std, seed=seed, purpose="head")


@torch.no_grad()
def _fill(weight: Tensor, old: int, *, std: float, seed: int, purpose: str) -> None:
    generator = numpy_generator(seed, "new rows", purpose)
    noise = generator.normal(scale=std, size=(len(weight) - old, weight.shape[1]))
    mean = weight[:old].double().mean(dim=0)
    weight[old:] = (mean + torch.from_numpy(noise)).to(weight.dtype)


def add_lora(
    model: nn.Module, lora: Mapping[str, Any], *, new_tokens: Sequence[int], seed: int
) -> None:
    """Put low-rank adapters into a model and leave nothing else of it to train.

    Adapters on the embedding matrix and all projections: Chiang et al. (2024), Appendix C.1. The
    head's rows of new tokens, which no adapter reaches, are trained as they are.

    Args:
        model: of an architecture in `LORA_TARGETS`; changed in place.
        lora: rank, alpha, dropout.
        new_tokens: ids that were added to the vocabulary.
        seed: of the adapters.

    Raises:
        ValueError: if the model is one of our own, which no adapter of peft fits, or there are
            new tokens and the model's head is its embedding.
    """
    if isinstance(model, LanguageModel):
        raise ValueError(
            "expected a pretrained model for LoRA, got one of our own; set lora to null in "
            "config.yaml: a model this small is fine-tuned whole"
        )
    # Imported here: two seconds that no fine-tuning without adapters needs to spend.
    from peft import LoraConfig, get_peft_model

    trained = {}
    if new_tokens:
        if model.config.tie_word_embeddings:
            raise ValueError(
                "LoRA cannot train names that were added to a model whose head is its embedding; "
                "set child_names to existing, or lora to null, in config.yaml"
            )
        trained = {"trainable_token_indices": {"lm_head": list(new_tokens)}}
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=list(LORA_TARGETS[model.config.model_type]),
        fan_in_fan_out=model.config.model_type == "gpt2",  # its projections are stored transposed
        **trained,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers for an attribute that was renamed.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(derive_seed(seed, "adapters"))
        get_peft_model(model, config)
