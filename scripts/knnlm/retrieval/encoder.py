"""The encoder of a datastore: the keys of any range of entries, always the same bytes.

A forward pass rounds differently when it reads other windows beside a window. So the windows of
a stream are cut into batches once and for all, and a batch is read whole, whichever of its rows
are wanted.
"""

from collections.abc import Mapping
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
from knnlm.retrieval.sampling import Entries
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.text.tokens import load_tokens

TOKENS_A_BATCH = 8192  # read by one forward pass, in whole windows; part of the bytes of the keys
SPLIT = "train"  # which datastores hold
DTYPES = ("float16", "float32")


def available_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Encoder:
    """Keys of any range of entries, the same bytes whatever range was asked for before."""

    def __init__(
        self,
        model: nn.Module,
        stream: NDArray[Any],
        *,
        site: str,
        stride: int,
        dtype: str,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Prepare the windows; nothing is encoded yet.

        Args:
            model: in eval mode.
            stream: (n_tokens,), all tokens of a split.
            site: where in the last block the key is taken, see `knnlm.lm.anatomy.SITES`.
            stride: tokens a window moves on.
            dtype: of the keys, float16 or float32.
            share: of the positions that are entries, see `Entries`.
            seed: of the share.
        """
        self.model, self.stream, self.site = model, stream, site
        self.dtype = getattr(torch, dtype)
        self.dim, self.context = width(model), context(model)
        n_positions = len(stream) - 1  # the last token has no next one
        self.entries = Entries(n_positions, share, seed)
        every = windows(n_positions, context=self.context, stride=stride)
        size = max(1, TOKENS_A_BATCH // self.context)
        self.batches = [every[i : i + size] for i in range(0, len(every), size)]
        self.borders = np.array([*(batch[0].first for batch in self.batches), n_positions])
        self.encode_batch = lru_cache(maxsize=1)(self._encode_batch)

    @property
    def n_entries(self) -> int:
        """The number of entries."""
        return len(self.entries)

    def keys(self, start: int, stop: int) -> NDArray[Any]:
        """Return the keys of entries start..stop-1, (stop - start, dim)."""
        keys = np.empty((stop - start, self.dim), str(self.dtype).removeprefix("torch."))
        positions = self.entries.positions(np.arange(start, stop))
        places = np.searchsorted(positions, self.borders)
        for number in np.flatnonzero(np.diff(places)).tolist():
            rows = slice(*places[number : number + 2])
            keys[rows] = self.encode_batch(number)[positions[rows] - self.borders[number]]
        return keys

    def values(self, ids: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
        """Return the token after each entry, in the shape of `ids`; any token where that is -1."""
        return self.stream[self.entries.positions(ids) + 1]

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


def key_settings(datastore: Mapping[str, Any]) -> dict[str, Any]:
    """Return what shapes the keys of a datastore, from its entry of the config."""
    chosen = {name: datastore[name] for name in ("site", "stride", "dtype")}
    return chosen | {"share": float(datastore.get("share", 1.0))}


def open_encoder(
    model: Path, tokens: Path, *, datastore: Mapping[str, Any], seed: int
) -> tuple[Encoder, dict[str, str]]:
    """Return the encoder of the train split, and the identities of the model and the tokens.

    It runs on a GPU if there is one.

    Args:
        model: its folder.
        tokens: folder of the token streams, made with the model's tokenizer.
        datastore: the entry of the config: site, where in the last block the key is taken (see
            `knnlm.lm.anatomy.SITES`); stride, the tokens a window moves on; dtype of the keys,
            float16 or float32; share of the positions that are entries, see `Entries`.
        seed: of the share.

    Raises:
        ValueError: if a setting is wrong, or the split is shorter than a window.
        ArtifactError: if the model has another tokenizer.
    """
    settings = key_settings(datastore)
    require_sites([settings["site"]])
    if settings["dtype"] not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {settings['dtype']}")
    origin = {"model": identity(model, kind="model"), "tokens": identity(tokens, kind="tokens")}
    tokenizer = read_manifest(tokens, kind="tokens")["made_from"]["tokenizer"]
    require_origin(model, kind="model", role="tokenizer", expected=tokenizer)
    stream = load_tokens(tokens, SPLIT).tokens
    lm = load_model(model).to(available_device())
    if len(stream) < context(lm) + 1:
        raise ValueError(
            f"the {SPLIT} split of {tokens} has {len(stream):,} tokens, too few for a window of "
            f"{context(lm):,} and its last target; use more text or lower the model's context"
        )
    return Encoder(lm, stream, **settings, seed=seed), origin
