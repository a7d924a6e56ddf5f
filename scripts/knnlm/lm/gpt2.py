"""GPT-2 in plain torch: the LM of our own, bit for bit what transformers computes.

Parameters have the names, shapes and initial values of transformers' GPT2LMHeadModel, so plain
transformers loads what is saved. Importing that class takes two thirds of the start of a job.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from knnlm.lm.mixture_of_softmaxes import MixtureOfSoftmaxes

SQRT_2_PI = math.sqrt(2.0 / math.pi)


@dataclass(kw_only=True)
class Config:
    """The shape of a model, in transformers' words; what is absent there is named here.

    Attributes:
        activation_dropout: share dropped after the activation inside the MLPs; ours.
        without_mlp: layers, counted from 0, that keep their place but have no MLP; ours.
        softmaxes: that are mixed in the output layer, 1 for a plain one; ours.
    """

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    activation_function: str
    tie_word_embeddings: bool
    embd_pdrop: float
    resid_pdrop: float
    attn_pdrop: float
    activation_dropout: float
    without_mlp: list[int]
    bos_token_id: int | None
    eos_token_id: int | None
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-5
    model_type: str = "gpt2"
    softmaxes: int = 1

    @property
    def hidden_size(self) -> int:
        """The width, by the name that every architecture of transformers has for it."""
        return self.n_embd

    @property
    def max_position_embeddings(self) -> int:
        """The context, by the name that every architecture of transformers has for it."""
        return self.n_positions


class GeluNew(nn.Module):
    """The GELU of OpenAI's code, by the operations that transformers takes for it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, in the shape of the input."""
        # In one expression: its order decides in which order the gradients of x are added up.
        return 0.5 * x * (1.0 + torch.tanh(SQRT_2_PI * (x + 0.044715 * torch.pow(x, 3.0))))


ACTIVATIONS: Mapping[str, type[nn.Module]] = {  # by transformers' names
    "gelu_new": GeluNew,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,  # of Llama and Mistral
}


class Projection(nn.Module):
    """A linear map whose weight is stored as (inputs, outputs), as in OpenAI's checkpoints."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs) of (..., inputs)."""
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class NoMLP(nn.Module):
    """Stands where a layer's MLP was and adds nothing to the residual stream."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return zeros of the shape of the input."""
        return torch.zeros_like(hidden_states)


class Attention(nn.Module):
    """Causal self-attention; `fused` chooses torch's kernel, or the products one by one."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.dropout, self.fused = config.n_head, config.attn_pdrop, True
        self.c_attn = Projection(config.n_embd, 3 * config.n_embd)
        self.c_proj = Projection(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, T, d) of (B, T, d); a mask is added to the scores in place of the causal."""
        batch, length, width = x.shape
        parts = self.c_attn(x).split(width, dim=2)
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts
        )
        if self.fused:
            mixed = functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=mask is None and length > 1,
                scale=query.size(-1) ** -0.5,
            )
        else:
            mixed = self._by_products(query, key, value, mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        return self.resid_dropout(self.c_proj(mixed))

    def _by_products(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> Tensor:
        scores = query @ key.transpose(-1, -2) * query.size(-1) ** -0.5
        if mask is None:
            mask = torch.full(scores.shape[-2:], -math.inf, device=scores.device).triu(1)
        weights = functional.dropout((scores + mask).softmax(dim=-1), self.dropout, self.training)
        return weights @ value


class MLP(nn.Module):
    """Two projections with an activation between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.c_fc = Projection(config.n_embd, config.n_inner)
        self.c_proj = Projection(config.n_inner, config.n_embd)
        self.act = ACTIVATIONS[config.activation_function]()
        self.act_dropout = nn.Dropout(config.activation_dropout)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, d) of (B, T, d)."""
        return self.dropout(self.c_proj(self.act_dropout(self.act(self.c_fc(x)))))


class Block(nn.Module):
    """One layer: attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the stream behind the layer, (B, T, d)."""
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Backbone(nn.Module):
    """Everything below the head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = False,
    ) -> tuple[Tensor]:
        """Return the hidden states (B, T, d) behind the final norm, alone in a tuple.

        Args:
            input_ids: (B, T) int64.
            position_ids: (B, T) or (1, T) int64; None counts from 0.
            attention_mask: (..., T, T), added to the scores in place of the causal mask.
            use_cache: for the call to be that of any model; nothing is ever cached.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x = self.drop(self.wte(input_ids) + self.wpe(position_ids))
        for block in self.h:
            x = block(x, attention_mask)
        return (self.ln_f(x),)


class Output(NamedTuple):
    """What a forward pass returns: logits (B, T, V)."""

    logits: Tensor


class LanguageModel(nn.Module):
    """GPT-2 with dropout inside the MLPs and, if the config says so, layers without an MLP.

    Its output layer may be a mixture of softmaxes.

    All parts are initialized before some are left out, so that two models of one seed, with and
    without an MLP, start with the same values wherever both have parameters.
    """

    def __init__(self, config: Config) -> None:
        """Draw the weights as GPT-2's: normal, and those that end in the stream scaled by depth."""
        super().__init__()
        self.config = config
        self.transformer = Backbone(config)
        self.transformer.apply(self._draw)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self._draw(self.lm_head)
        if config.softmaxes > 1:  # drawn last: what comes before is as in a plain one
            plain = self.lm_head
            self.lm_head = MixtureOfSoftmaxes(config.n_embd, config.vocab_size, config.softmaxes)
            self.lm_head.weight = plain.weight
            self.lm_head.draw()
        self.tie()
        for number in config.without_mlp:
            self.transformer.h[number].ln_2 = nn.Identity()
            self.transformer.h[number].mlp = NoMLP()

    def _draw(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Embedding | nn.Linear | Projection):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, Attention | MLP):
            nn.init.normal_(module.c_proj.weight, std=std / math.sqrt(2 * self.config.n_layer))

    def tie(self) -> None:
        """Make the head's weight the embedding's, if the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight

    def forward(self, input_ids: Tensor, **named: Any) -> Output:
        """Return the logits; arguments by name are those of `Backbone`."""
        return Output(self.lm_head(self.transformer(input_ids, **named)[0]))

    @property
    def base_model(self) -> Backbone:
        """Everything below the head."""
        return self.transformer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm_head.weight.device

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding of tokens."""
        return self.transformer.wte

    def get_output_embeddings(self) -> nn.Linear | MixtureOfSoftmaxes:
        """Return the head."""
        return self.lm_head

    def resize_token_embeddings(self, size: int) -> None:
        """Change the number of tokens in place; rows that are new hold no values yet."""
        kept = min(size, self.config.vocab_size)
        self.config.vocab_size = size
        for module in {self.transformer.wte, self.lm_head}:
            old = module.weight.detach()
            module.weight = nn.Parameter(old.new_zeros(size, old.shape[1]))
            module.weight.data[:kept] = old[:kept]
        self.transformer.wte.num_embeddings = self.lm_head.out_features = size
        self.tie()
