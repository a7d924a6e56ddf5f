"""The language model: made from a config block, saved and loaded as a Hugging Face folder.

Ours has the architecture of GPT-2 (learned positions, norms before each part), with two
additions that its config.json records: dropout after the activation inside the MLPs, and layers
that keep their place but have no MLP. Models of others are transformers' own.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub import constants as hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from torch import nn

from knnlm.lm import gpt2_folder
from knnlm.lm.architecture import architecture_of
from knnlm.lm.gpt2 import ACTIVATIONS, Config, LanguageModel
from knnlm.lm.pretrained_folder import CONFIG, INDEX, WEIGHTS
from knnlm.runtime.artifacts import flush
from knnlm.runtime.full_disk import named_if_full
from knnlm.runtime.seeds import derive_seed

HUB_SECONDS = 10.0  # patience with a hub that does not answer
FILES = [CONFIG, "model*.safetensors", INDEX]  # of a model on the hub
ATTENTION = "sdpa"  # torch's own kernels: fastest on every device that is supported


def create_model(
    model: dict[str, Any], *, vocabulary_size: int, seed: int, end_of_document: int | None = None
) -> LanguageModel:
    """Return a new model with random weights, in eval mode.

    Weights are drawn as GPT-2's (normal, 0.02, residual projections scaled by depth). The
    outside world's random state stays as it was.

    Args:
        model: the block of the config: layers, width, heads, ffn_width, context, activation,
            tied_embeddings, dropout (residual, attention, activation), without_mlp (layers
            counted from 0, or from the end with -1 the last), and softmaxes, if there are several.
        vocabulary_size: V.
        seed: of the weights.
        end_of_document: token that separates documents, noted in the config.

    Raises:
        ValueError: if the heads do not divide the width, or a layer or activation is unknown.
    """
    _check(model)
    dropout = model["dropout"]
    config = Config(
        vocab_size=vocabulary_size,
        n_positions=model["context"],
        n_embd=model["width"],
        n_layer=model["layers"],
        n_head=model["heads"],
        n_inner=model["ffn_width"],
        activation_function=model["activation"],
        embd_pdrop=dropout["residual"],
        resid_pdrop=dropout["residual"],
        attn_pdrop=dropout["attention"],
        activation_dropout=dropout["activation"],
        without_mlp=sorted({layer % model["layers"] for layer in model["without_mlp"]}),
        softmaxes=model.get("softmaxes", 1),
        tie_word_embeddings=model["tied_embeddings"],
        bos_token_id=end_of_document,
        eos_token_id=end_of_document,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return LanguageModel(config).eval()


def _check(model: dict[str, Any]) -> None:
    layers, width, heads = model["layers"], model["width"], model["heads"]
    if width % heads:
        raise ValueError(
            f"expected a width that the heads divide, got width {width} and {heads} heads; "
            "change one of them in config.yaml"
        )
    if model["activation"] not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {model['activation']}; expected one of {', '.join(ACTIVATIONS)}"
        )
    unknown = [layer for layer in model["without_mlp"] if not -layers <= layer < layers]
    if unknown:
        raise ValueError(
            f"without_mlp names layer {unknown[0]}, but the model has {layers}, counted from 0 "
            f"to {layers - 1} or from -1 backwards"
        )


def save_model(model: nn.Module, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder, which plain transformers can load.

    A model that leaves out an MLP or uses dropout inside it needs `load_model`. The files are not
    written atomically: a folder without a later mark of its own is not whole.

    Raises:
        DiskFullError: if the disk is full.
    """
    with named_if_full(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(model, LanguageModel):
            gpt2_folder.save(model, folder)
        else:
            model.save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            flush(file)


def load_model(folder: Path | str) -> nn.Module:
    """Return a model in eval mode, fp32, on the CPU.

    Args:
        folder: one of ours, or any Hugging Face folder (or hub name) of a causal LM whose
            architecture is in the anatomy table. Weights must be safetensors: nothing is
            unpickled, and no code that comes with a model is run.

    Raises:
        ValueError: if there is no such folder or name, it is gated, or of another architecture.
    """
    try:
        whole = model_folder(folder)
        ours = gpt2_folder.is_ours(whole)
        return (gpt2_folder.load(whole) if ours else _load_foreign(whole)).eval()
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"the model {folder} cannot be loaded ({error}); expected config.json and "
            "model.safetensors of a causal language model"
        ) from error


def model_folder(model: Path | str) -> Path:
    """Return the folder of a model: itself, or the cached files of a hub name, fetched if needed.

    Raises:
        ValueError: if it is no folder and cannot be had from the hub.
    """
    if Path(model).is_dir():
        return Path(model)
    cached = _is_cached(str(model))
    if not cached:
        _require_on_hub(str(model))
    return Path(snapshot_download(str(model), allow_patterns=FILES, local_files_only=cached))


def _load_foreign(folder: Path) -> nn.Module:
    library = transformers()
    config = library.AutoConfig.from_pretrained(folder, local_files_only=True)
    architecture_of(config.model_type)
    return library.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=ATTENTION,
        use_safetensors=True,
        local_files_only=True,
    )


def transformers() -> ModuleType:
    """Return transformers, without the bars of loading and saving, which would fill the logs.

    Imported here: three seconds that no job with a model of our own needs to spend.
    """
    import transformers as library
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return library


def _is_cached(name: str) -> bool:
    """Return whether the weights of a hub name were fetched before; ask no network."""
    try:
        return any(isinstance(try_to_load_from_cache(name, file), str) for file in WEIGHTS)
    except HFValidationError:  # a path, not a name
        return False


def _require_on_hub(name: str) -> None:
    """Check that the hub has a model, in seconds; loading alone would try for a minute."""
    remedy = "give a folder with config.json and model.safetensors instead"
    if hub.HF_HUB_OFFLINE:
        raise ValueError(
            f"the model {name} is neither a folder with a config.json nor in the cache, and "
            f"HF_HUB_OFFLINE is set; unset it to fetch the model, or {remedy}"
        )
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except GatedRepoError as error:
        raise ValueError(
            f"the model {name} is gated; accept its terms on its page and log in with "
            f"`hf auth login`, or {remedy}"
        ) from error
    except (RepositoryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"there is no folder {name} with a config.json, and the hub has no such model; "
            f"correct the name, or {remedy}"
        ) from error
    except Exception as error:  # the hub's client has changed its network errors before
        raise ValueError(
            f"the model {name} is not in the cache and the hub cannot be reached "
            f"({type(error).__name__}); fetch it once with a network (`hf download {name}`), "
            f"or {remedy}"
        ) from error
