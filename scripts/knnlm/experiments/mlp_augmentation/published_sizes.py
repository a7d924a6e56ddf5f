"""What an MLP stores beside the datastore that it replaces, at the sizes of the papers.

A share of bytes is arithmetic: it follows from the sizes alone, and no run is needed for it. The
MLP grows with the width of a key and with the vocabulary, the datastore with the text as well; so
the share of a small datastore says nothing about that of a large one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from knnlm.evidence.scored_text import Row
from knnlm.retrieval.engines.settings import CODE_BITS

FP16, FP32 = (np.dtype(dtype).itemsize for dtype in ("float16", "float32"))


@dataclass(frozen=True)
class Sizes:
    """The sizes that a paper's datastore, index and MLP have.

    Attributes:
        entries: of the datastore.
        dim: width of a key.
        hidden: of the MLP.
        vocabulary: rows of W.
        n_centroids: clusters of the IVFPQ index.
        code_bytes: of a quantized key.
    """

    entries: int
    dim: int = 1024
    hidden: int = 4096
    vocabulary: int = 33_344
    n_centroids: int = 4096
    code_bytes: int = 64


# Chiang et al. train their LM by the recipe of Xu et al.: WikiText-103 in 33,344 kinds of BPE
# tokens. Beside it as many entries as Khandelwal et al. have, one for each word: fewer, so that
# the share of the same MLP is larger.
PUBLISHED = {
    "xu2023": Sizes(entries=153_225_485),
    "khandelwal2020": Sizes(entries=103_225_485),
}


def datastore_bytes(sizes: Sizes) -> dict[str, int]:
    """Return the bytes of fp16 keys with the values, and of the quantized index with the values.

    The index is the least that it can be: codes, centroids in fp32, and the codebook, which is as
    large as `2**CODE_BITS` keys; ids of entries are left out. A value has the fewest bytes that
    hold a token of the vocabulary.
    """
    values = sizes.entries * np.min_scalar_type(sizes.vocabulary - 1).itemsize
    trained = FP32 * sizes.dim * (sizes.n_centroids + 2**CODE_BITS)
    return {
        "keys_float16_and_values": sizes.entries * sizes.dim * FP16 + values,
        "ivfpq_and_values": sizes.entries * sizes.code_bytes + trained + values,
    }


def mlp_bytes(sizes: Sizes, *, own_head: bool) -> int:
    """Return the bytes of an MLP's own parameters in fp32: logits = W(z + LN(MLP(z))).

    Args:
        sizes: of the paper.
        own_head: whether W is its own, so that it counts.
    """
    layers = 2 * sizes.dim * sizes.hidden + sizes.hidden + sizes.dim
    norm, head = 2 * sizes.dim, sizes.vocabulary * sizes.dim if own_head else 0
    return FP32 * (layers + norm + head)


def published_rows(names: Mapping[str, Any]) -> list[Row]:
    """Return the bytes of each published datastore and MLP, and the share of the second.

    Args:
        names: of the rows; they belong to no model and no seed.
    """
    rows = []
    for paper, sizes in PUBLISHED.items():
        place, ways = f"at the size of {paper}", datastore_bytes(sizes)
        counted = {("knn_lm", f"{way}/{place}", "bytes"): size for way, size in ways.items()}
        for head, own in {"lm_head_frozen": False, "lm_head_trained": True, "random": True}.items():
            size, setting = mlp_bytes(sizes, own_head=own), f"{head}/{place}"
            counted["mlp", setting, "bytes"] = size
            for way, whole in ways.items():
                counted["mlp", setting, f"share_of_{way}"] = 100 * size / whole
        for (method, setting, metric), value in counted.items():
            kind = {"method": method, "setting": setting, "metric": metric, "n": 1}
            unit = "bytes" if metric == "bytes" else "percent"
            rows.append({**names, **kind, "value": value, "unit": unit})
    return rows
