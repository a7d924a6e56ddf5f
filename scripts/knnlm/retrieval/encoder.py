"""The encoder of a datastore: the keys of any range of positions, always the same bytes.

A forward pass rounds differently when it reads other windows beside a window. So the windows of
a stream are cut into batches once and for all, and a batch is read whole, whichever of its rows
are wanted.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from knnlm.lm.anatomy import capture, context, require_sites, width
from knnlm.lm.model import load_model
from knnlm.lm.windows import Window, windows
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.text.tokens import load_tokens

TOKENS_A_BATCH = 8192  # read by one forward pass, in whole windows; part of the bytes of the keys
DTYPES = ("float16", "float32")


def available_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Encoder:
    """Keys of any range of positions, the same bytes whatever range was asked for before."""

    def __init__(
        self, model: nn.Module, stream: NDArray[Any], *, site: str, stride: int, dtype: str
    ) -> None:
        """Prepare the windows; nothing is encoded yet.

        Args:
            model: in eval mode.
            stream: (n_tokens,), all tokens of a split.
            site: where in the last block the key is taken, see `knnlm.lm.anatomy.SITES`.
            stride: tokens a window moves on.
            dtype: of the keys, float16 or float32.
        """
        self.model, self.stream, self.site = model, stream, site
        self.dtype = getattr(torch, dtype)
        self.dim, self.context = width(model), context(model)
        self.n_entries = len(stream) - 1  # the last token has no next one
        every = windows(self.n_entries, context=self.context, stride=stride)
        size = max(1, TOKENS_A_BATCH // self.context)
        self.batches = [every[i : i + size] for i in range(0, len(every), size)]
        self.firsts = np.array([batch[0].first for batch in self.batches])
        self.encode_batch = lru_cache(maxsize=1)(self._encode_batch)

    def keys(self, start: int, stop: int) -> NDArray[Any]:
        """Return the keys of positions start..stop-1, (stop - start, dim)."""
        keys = np.empty((stop - start, self.dim), str(self.dtype).removeprefix("torch."))
        low, high = np.searchsorted(self.firsts, [start, stop - 1], side="right")
        for number in range(low - 1, high):
            first = self.firsts[number]
            encoded = self.encode_batch(number)
            wanted = encoded[max(start - first, 0) : stop - first]
            place = max(first - start, 0)
            keys[place : place + len(wanted)] = wanted
        return keys

    def _encode_batch(self, number: int) -> NDArray[Any]:
        batch: list[Window] = self.batches[number]
        tokens = np.stack([self.stream[w.start : w.stop] for w in batch]).astype(np.int64)
        input_ids = torch.from_numpy(tokens).to(self.model.device)
        states = capture(self.model, input_ids, [self.site])[self.site]
        kept = [state[w.first - w.start :] for state, w in zip(states, batch, strict=True)]
        keys = torch.cat(kept).to(self.dtype)
        if not torch.isfinite(keys).all():
            raise ValueError(
                f"a key between tokens {batch[0].first:,} and {batch[-1].stop:,} does not fit "
                f"{self.dtype}; set the datastore's dtype to float32"
            )
        return keys.cpu().numpy()


def open_encoder(
    model: Path,
    tokens: Path,
    *,
    site: str,
    stride: int,
    dtype: str,
    split: str,
    device: str | None,
) -> tuple[Encoder, dict[str, str]]:
    """Return the encoder of a split, and the identities of the model and the tokens.

    Args:
        model: its folder.
        tokens: folder of the token streams, made with the model's tokenizer.
        site: where in the last block the key is taken, see `knnlm.lm.anatomy.SITES`.
        stride: tokens a window moves on.
        dtype: of the keys, float16 or float32.
        split: the split that is encoded.
        device: where the model runs; None takes a GPU if there is one.

    Raises:
        ValueError: if a setting is wrong, or the split is shorter than a window.
        ArtifactError: if the model has another tokenizer.
    """
    require_sites([site])
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    origin = {"model": identity(model, kind="model"), "tokens": identity(tokens, kind="tokens")}
    tokenizer = read_manifest(tokens, kind="tokens")["made_from"]["tokenizer"]
    require_origin(model, kind="model", role="tokenizer", expected=tokenizer)
    stream = load_tokens(tokens, split).tokens
    lm = load_model(model).to(device or available_device())
    if len(stream) < context(lm) + 1:
        raise ValueError(
            f"the {split} split of {tokens} has {len(stream):,} tokens, too few for a window of "
            f"{context(lm):,} and its last target; use more text or lower the model's context"
        )
    return Encoder(lm, stream, site=site, stride=stride, dtype=dtype), origin
