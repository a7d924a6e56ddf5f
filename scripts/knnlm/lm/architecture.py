"""What families of models call their parts, and the sites between them; nothing needs torch.

Whoever only reads a config.json, such as the Snakefile, asks here which models are known.
"""

from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType

FFN_INPUT_BEFORE = "ffn_input_before_layer_norm"
FFN_INPUT_AFTER = "ffn_input_after_layer_norm"
OUTPUT_AFTER = "output_after_layer_norm"
CONTEXT = "macondo_context"  # in config.json: tokens of a window, where a model could read more


@dataclass(frozen=True)
class Architecture:
    """One family of models.

    Attributes:
        backbone: with the parts that follow, the names that its modules have.
        sizes: the names that config.json has for layers, width, heads, ffn_width and positions.
        tied: whether head and embedding share a matrix if config.json does not say.
    """

    backbone: str
    layers: str
    attention_norm: str
    mlp_norm: str
    mlp: str
    final_norm: str
    sizes: tuple[str, str, str, str, str]
    tied: bool


_LLAMA = Architecture(
    backbone="model",
    layers="layers",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    final_norm="norm",
    sizes=(
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ),
    tied=False,
)
ARCHITECTURES = MappingProxyType(  # by `model_type` of the model's config
    {
        "gpt2": Architecture(
            backbone="transformer",
            layers="h",
            attention_norm="ln_1",
            mlp_norm="ln_2",
            mlp="mlp",
            final_norm="ln_f",
            sizes=("n_layer", "n_embd", "n_head", "n_inner", "n_positions"),
            tied=True,
        ),
        "llama": _LLAMA,
        "mistral": _LLAMA,
    }
)


@dataclass(frozen=True)
class Site:
    """A place in the last block: before or after one of its three norms."""

    norm: str  # a field of `Architecture`
    after: bool


# The sites of Khandelwal et al. (2020), Table 5, in the order in which a forward pass meets them.
SITES = MappingProxyType(
    {
        "attention_input_before_layer_norm": Site("attention_norm", after=False),
        "attention_input_after_layer_norm": Site("attention_norm", after=True),
        FFN_INPUT_BEFORE: Site("mlp_norm", after=False),
        FFN_INPUT_AFTER: Site("mlp_norm", after=True),
        "output_before_layer_norm": Site("final_norm", after=False),
        OUTPUT_AFTER: Site("final_norm", after=True),
    }
)
# Those that projections, replacements and the explorer need of every model.
STANDING_SITES = (FFN_INPUT_BEFORE, FFN_INPUT_AFTER, OUTPUT_AFTER)


def architecture_of(model_type: str) -> Architecture:
    """Return the names of the parts of the models of one type, such as "gpt2".

    Raises:
        ValueError: if the type is not in the table.
    """
    if model_type not in ARCHITECTURES:
        raise ValueError(
            f"expected a model of type {', '.join(ARCHITECTURES)}, got {model_type}; add its "
            "parts to the table in scripts/knnlm/lm/architecture.py"
        )
    return ARCHITECTURES[model_type]


def require_sites(sites: Collection[str]) -> None:
    """Check that sites are known, and that there is one.

    Raises:
        ValueError: naming the first unknown site and all known ones.
    """
    for site in sites:
        if site not in SITES:
            raise ValueError(f"unknown site {site}; expected one of {', '.join(SITES)}")
    if not sites:
        raise ValueError(f"expected at least one site of {', '.join(SITES)}, got none")
