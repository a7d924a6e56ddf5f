"""The work of language models: a forward pass, an update, an optimizer, by shape alone.

FLOPs are those of mlp_augmentation.flops, computed from the shape; a test compares them. What is
not a matrix product is counted in values that are read or written, from the operations of the code.
Standard library only: the Snakefile imports this module, in every job.
"""

from collections.abc import Mapping
from typing import Any

from knnlm.plan.sizes import blocks_parameters, parameters
from knnlm.plan.work import Work, product

FP32 = 4  # bytes

# Values read or written a token of a forward pass, outside of products; a backward pass has twice
# as many. Of the width: two norms, two residuals, biases, and the layouts of attention; of the
# hidden size: bias and activation, which gelu_new computes in eight operations of one or two
# inputs; of the logits: maximum, exponential, sum, and the gather of the target. Attention is
# fused: its scores never leave the cache.
STREAM_VALUES = 24
HIDDEN_VALUES = {"relu": 4, "gelu_new": 24}
LOGIT_VALUES = 4
# Tensor operations of a forward pass: of a layer, and around all layers.
LAYER_OPERATIONS, MODEL_OPERATIONS = 35, 40
UPDATE_OPERATIONS = 250  # beyond the passes: batch, seeds, learning rate, clipping, bookkeeping
# Values read or written a parameter of an update: clear, accumulate and norm of the gradient;
# weight, gradient and two moments, of which three are written again.
OPTIMIZER_VALUES = 12


def forward(
    shape: Mapping[str, Any],
    size: int,
    n_tokens: float,
    *,
    span: float | None = None,
    scored: float | None = None,
    passes: float = 1,
) -> Work:
    """Return the work of reading tokens.

    Args:
        shape: a block of `models`.
        size: of the vocabulary.
        n_tokens: read, in all passes together.
        span: tokens of a window; None is the context.
        scored: tokens for which logits are computed; None is all of them.
        passes: among which the tokens are split.
    """
    d, hidden, layers = shape["width"], shape["ffn_width"], shape["layers"]
    span = span or shape["context"]
    scored = n_tokens if scored is None else scored
    rows = n_tokens / passes
    n_mlps = layers - len(shape.get("without_mlp", []))
    # At one rounded side, because Q, K, V and output are one by one at least as wide as the stream.
    blocks = product(rows, d, blocks_parameters(shape) / d, side=d) * passes
    attention = product(n_tokens, span, 2 * d * layers, side=d // shape["heads"])
    head = product(rows, d, size) * (passes * scored / n_tokens) if scored else Work()
    activation = HIDDEN_VALUES["relu" if shape.get("activation") == "relu" else "gelu_new"]
    scores = layers * shape["heads"] * span
    values = layers * STREAM_VALUES * d + n_mlps * activation * hidden
    return (
        blocks
        + attention
        + head
        + Work(
            moved=FP32 * (n_tokens * values + scored * LOGIT_VALUES * size),
            exponentials=n_tokens * (n_mlps * hidden + scores) + scored * size,
            operations=passes * (layers * LAYER_OPERATIONS + MODEL_OPERATIONS),
            torch=True,
        )
    )


def training(
    shape: Mapping[str, Any],
    size: int,
    *,
    updates: float,
    tokens_per_update: float,
    span: float | None = None,
    scored_per_update: float | None = None,
    passes: int = 1,
    trained: float | None = None,
) -> Work:
    """Return the work of training a model.

    Args:
        shape: a block of `models`.
        size: of the vocabulary.
        updates: how many.
        tokens_per_update: read by one.
        span: tokens of a window; None is the context.
        scored_per_update: tokens with a loss; None is all.
        passes: forward passes of an update.
        trained: parameters that are updated; None is all.
    """
    read = forward(
        shape, size, tokens_per_update, span=span, scored=scored_per_update, passes=passes
    )
    count = parameters(shape, size) if trained is None else trained
    frozen = trained is not None and trained < parameters(shape, size) / 2
    return (backward_too(read, gradients=1 if frozen else 2) + optimizer(count)) * updates


def backward_too(read: Work, *, gradients: int = 2) -> Work:
    """Return a forward and its backward pass.

    Args:
        read: the forward pass.
        gradients: products of a backward pass for each of a forward pass: one by what went in,
            one by the weights, if they are trained.
    """
    products = Work(products=read.products) * gradients
    others = Work(moved=2 * read.moved, operations=2 * read.operations)
    return read + products + others


def optimizer(count: float) -> Work:
    """Return the work of one update beyond its passes, of a number of parameters."""
    return Work(moved=FP32 * OPTIMIZER_VALUES * count, operations=UPDATE_OPERATIONS, torch=True)


def activations(
    shape: Mapping[str, Any], size: int, n_tokens: float, *, scored: float, half: bool = False
) -> float:
    """Return the bytes that a forward pass keeps for its backward pass; logits are in fp32."""
    kept = shape["layers"] * (8 * shape["width"] + 9 * shape["ffn_width"])
    return FP32 * (n_tokens * kept / (2 if half else 1) + 3 * scored * size)


def state_bytes(count: float) -> float:
    """Return the bytes of weights, gradients and two moments, in fp32."""
    return 4 * FP32 * count


def mlp_training(
    width: int, hidden: int, size: int, *, pairs: float, batch: float, frozen: bool
) -> Work:
    """Return the work of training an MLP replacement on pairs."""
    inner = product(batch, width, 2 * hidden)
    head = product(batch, width, size)
    values = batch * (8 * width + 24 * hidden + LOGIT_VALUES * size)
    others = Work(moved=4 * values, exponentials=batch * (hidden + size), operations=30, torch=True)
    count = 2 * width * hidden + (0 if frozen else size * width)
    passes = backward_too(inner + others) + backward_too(head, gradients=1 if frozen else 2)
    update = passes + optimizer(count)
    return update * (pairs / batch)
