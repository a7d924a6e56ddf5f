"""An MLP in the place of the datastore: trained to map keys to values, queried instead of them.

Chiang et al. (2024), Section 5 and Appendix D: logits = W(z + LN(MLP(z))), z a key, the MLP of
one hidden layer as the last one of the LM. The paper does not say what W is, so it is a setting.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from knnlm.lm.gpt2 import ACTIVATIONS
from knnlm.lm.likelihood import log_likelihood_in_tiles
from knnlm.lm.state import trained
from knnlm.retrieval.datastore import Shard
from knnlm.retrieval.pair_training import train_on_shuffled
from knnlm.retrieval.pairs import ShuffledPairs
from knnlm.runtime.seeds import derive_seed

HEADS = ("lm_head_frozen", "lm_head_trained", "random")
INITIAL_STD = 0.02  # of GPT-2's weights


class MlpReplacement(nn.Module):
    """logits = W(z + LN(MLP(z))), with one hidden layer and no dropout.

    What a gradient is taken of is the replacement's own; a frozen head is the LM's and costs it
    nothing.
    """

    def __init__(
        self, head: Tensor, *, head_setting: str, hidden: int, activation: str, seed: int
    ) -> None:
        """Draw the weights as GPT-2's; the outside world's random state stays as it was.

        Args:
            head: (V, d), the LM's output matrix; only its shape counts if W is random.
            head_setting: lm_head_frozen: W is the LM's and stays; lm_head_trained: a copy that
                is trained on; random: drawn and trained.
            hidden: size of the hidden layer.
            activation: a name that transformers knows, such as relu or gelu_new.
            seed: of the weights; the MLP's are the same whatever the head.

        Raises:
            ValueError: if the setting or the activation is unknown.
        """
        super().__init__()
        if head_setting not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head_setting}")
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"unknown activation {activation}; expected one of {known}")
        vocabulary_size, dim = head.shape
        self.head_setting = head_setting
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "replacement"))
            self.into = _linear(dim, hidden, bias=True)
            self.activation = ACTIVATIONS[activation]()
            self.out = _linear(hidden, dim, bias=True)
            self.norm = nn.LayerNorm(dim)
            self.head = _linear(dim, vocabulary_size, bias=False)
        if head_setting != "random":
            self.head.weight = nn.Parameter(head.detach().clone())
        self.head.weight.requires_grad = head_setting != "lm_head_frozen"

    def forward(self, keys: Tensor) -> Tensor:
        """Return the logits (..., V) of keys (..., d), in any float dtype."""
        z = keys.float()
        return self.head(z + self.norm(self.out(self.activation(self.into(z)))))

    @property
    def own_bytes(self) -> int:
        """Bytes of the parameters that are stored for it: all but a frozen head."""
        return sum(p.numel() * p.element_size() for _, p in trained(self))


def _linear(inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def train_on_pairs(
    module: MlpReplacement,
    datastore_keys: NDArray[np.floating],
    datastore_values: NDArray[np.integer],
    *,
    settings: Mapping[str, Any],
    seed: int,
    partial: Path,
) -> list[dict[str, float]]:
    """Train a replacement in place on pairs in memory, leave it in eval mode, return the log.

    Args:
        module: the replacement.
        datastore_keys: (n, d).
        datastore_values: (n,), token ids.
        settings: see `pair_recipe`, save_every and buffer_mib.
        seed: of the order of the pairs.
        partial: folder of the state that a killed training continues from.

    Raises:
        ValueError: see `train_on_shuffled`.
    """
    shard = Shard(0, datastore_keys, datastore_values)
    pairs = ShuffledPairs([shard], buffer_mib=settings["buffer_mib"], seed=seed)
    return train_on(module, pairs, settings=settings, seed=seed, partial=partial)


def train_on(
    module: MlpReplacement,
    pairs: ShuffledPairs,
    *,
    settings: Mapping[str, Any],
    seed: int,
    partial: Path,
) -> list[dict[str, float]]:
    """Train a replacement on pairs from wherever they come; the rest as `train_on_pairs`."""
    return train_on_shuffled(
        module,
        pairs,
        loss=_loss,
        vocabulary_size=len(module.head.weight),
        settings=settings,
        seed=seed,
        partial=partial,
    )


def _loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    keys, values = batch
    return nn.functional.cross_entropy(module(keys), values)


def activation_of(lm: nn.Module) -> str:
    """Return the name of the activation in the MLPs of an LM."""
    names = ("activation_function", "hidden_act")  # of GPT-2; of Llama and Mistral
    return next(getattr(lm.config, name) for name in names if hasattr(lm.config, name))


def replacement_log_probs(
    module: MlpReplacement, datastore_keys: NDArray[np.floating], targets: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return log p(target) of each key in nats, (n,).

    Args:
        module: in eval mode.
        datastore_keys: (n, d), hidden states at the site of the keys it was trained on.
        targets: (n,), token ids.
    """
    weight = module.head.weight

    def logits_of(rows: slice) -> Tensor:
        return module(torch.from_numpy(np.array(datastore_keys[rows])).to(weight.device))

    wanted = torch.from_numpy(np.asarray(targets, np.int64))
    return log_likelihood_in_tiles(logits_of, wanted, vocabulary=len(weight))
