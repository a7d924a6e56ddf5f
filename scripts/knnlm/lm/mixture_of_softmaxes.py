"""An output layer that mixes several softmaxes, in the place of one."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class MixtureOfSoftmaxes(nn.Module):
    """The output layer of Yang et al. (2018), Section 2.4.

    p = sum over m of prior_m softmax(W tanh(H_m x)), the prior a softmax of x. A mixture of
    softmaxes has a rank above the width, which one softmax has not.
    """

    def __init__(self, width: int, vocabulary_size: int, softmaxes: int) -> None:
        """Prepare the layer; the weight W is that of one softmax, and is tied as it is."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary_size, width))
        self.prior = nn.Linear(width, softmaxes, bias=False)
        self.latent = nn.Linear(width, softmaxes * width)

    def draw(self) -> None:
        """Draw all but W: equal priors, and states as large as what a plain head would get.

        With GPT-2's deviation of 0.02 the states would be close to 0, and so would all logits.
        """
        nn.init.zeros_(self.prior.weight)
        nn.init.normal_(self.latent.weight, std=self.latent.in_features**-0.5)
        nn.init.zeros_(self.latent.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return log p (..., V) of hidden states (..., d): logits that are normed already."""
        states = torch.tanh(self.latent(x)).unflatten(-1, (-1, x.shape[-1]))  # (..., M, d)
        priors = self.prior(x).log_softmax(dim=-1)
        parts = functional.linear(states, self.weight).log_softmax(dim=-1)
        return (priors[..., None] + parts).logsumexp(dim=-2)
