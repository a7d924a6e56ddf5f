"""Output embeddings that learn from a datastore's pairs: some vectors a word, in its place.

Xu et al. (2023), Sections 4 and 5: the datastore is an output layer whose matrix W_ds has a row
for each token of train. Trained embeddings have n rows a word instead:

    P(w | h) = sum over the rows v of w of softmax(W_ds h)_v

Rows need not be dealt out evenly: `rows_in_proportion` gives more of them to frequent words, or to
those that are hard to predict.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from knnlm.lm.likelihood import LOGITS_AT_A_TIME
from knnlm.runtime.seeds import derive_seed


class OutputEmbeddings(nn.Module):
    """One softmax over all rows; the probability of a word is the sum over its own.

    The rows of a word stand beside each other, in the order of the vocabulary.
    """

    def __init__(self, counts: NDArray[np.integer], *, dim: int, seed: int) -> None:
        """Draw every row from a normal distribution with fairseq's deviation, dim ** -0.5.

        The rows of a word differ from the start, without which they would learn the same. The
        outside world's random state stays as it was.

        Args:
            counts: (V,), the rows of each word, at least one.
            dim: d, of a key.
            seed: of the rows.

        Raises:
            ValueError: if a word has no row.
        """
        super().__init__()
        if len(counts) == 0 or np.min(counts) < 1:
            raise ValueError("expected at least one row for each word of the vocabulary")
        counts = torch.from_numpy(np.asarray(counts, np.int64))
        self.register_buffer("counts", counts)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "output embeddings"))
            self.weight = nn.Parameter(torch.randn(int(counts.sum()), dim) * dim**-0.5)

    def forward(self, keys: Tensor, values: Tensor) -> Tensor:
        """Return log P(value | key), (n,) in nats, of keys (n, d) and token ids (n,)."""
        return self.log_probs(nn.functional.linear(keys.float(), self.weight), values)

    def log_probs(self, logits: Tensor, values: Tensor) -> Tensor:
        """Return log P(value), (n,), from the logits (n, rows) of all rows and token ids (n,)."""
        counts = self.counts[values]
        place = torch.repeat_interleave(counts)  # of the pair that each of these rows is for
        number = torch.arange(len(place), device=place.device) - (counts.cumsum(0) - counts)[place]
        own = logits[place, self.starts[values][place] + number]
        highest = own.new_full((len(values),), -torch.inf)
        highest = highest.scatter_reduce(0, place, own.detach(), "amax")
        shares = torch.zeros_like(highest).index_add(0, place, (own - highest[place]).exp())
        return highest + shares.log() - logits.logsumexp(dim=1)


def embeddings_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean nll, in nats, of the values of a batch given their keys."""
    return -module(*batch).mean()


@torch.no_grad()
def embeddings_log_probs(
    module: OutputEmbeddings, datastore_keys: NDArray[np.floating], targets: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return log P(target) of each key in nats, (n,), summed in float64.

    Args:
        module: the embeddings.
        datastore_keys: (n, d), hidden states at the site of the keys that it was trained on.
        targets: (n,), token ids.
    """
    weight, found = module.weight, np.empty(len(targets))
    tile = max(1, LOGITS_AT_A_TIME // len(weight))
    for first in range(0, len(targets), tile):
        rows = slice(first, first + tile)
        keys = torch.from_numpy(np.array(datastore_keys[rows])).to(weight.device).float()
        wanted = torch.from_numpy(np.asarray(targets[rows], np.int64)).to(weight.device)
        logits = nn.functional.linear(keys, weight).double()
        found[rows] = module.log_probs(logits, wanted).cpu().numpy()
    return found


def rows_in_proportion(shares: NDArray[np.floating], *, vectors: int) -> NDArray[np.int64]:
    """Return the rows of each word, (V,): one each, and those left by their share of something.

    The rows are as many as with `vectors` for each word. What proportion leaves over goes to the
    largest remainders, of equal ones to the smaller token id.

    Args:
        shares: (V,), such as how often each word stands in train; at least 0, not all 0.
        vectors: rows over words, at least 1.
    """
    extra = (vectors - 1) * len(shares)
    exact = extra * np.asarray(shares, np.float64) / np.sum(shares, dtype=np.float64)
    rows = np.floor(exact).astype(np.int64)
    left = np.argsort(-(exact - rows), kind="stable")[: extra - rows.sum()]
    rows[left] += 1
    return rows + 1
