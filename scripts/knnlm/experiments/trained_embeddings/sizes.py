"""How many vectors a word has, and what embeddings of that size take. Read by the plan: no torch.

A size is named as the settings name it: `3` are three vectors for each word, `3_by_frequency` and
`3_by_loss` as many over all words, dealt out in proportion to how often a word stands in train, or
to the nats that it costs there.
"""

from typing import Any, NamedTuple

from knnlm.plan.needs import FP32, Settings
from knnlm.plan.sizes import ModelSize

FREQUENCY, LOSS = "frequency", "loss"
FIRST = "1"  # with which all others are compared, and which knows what a word costs
COPIES = 4  # of the rows in training: themselves, their gradients and two moments
TILES = 3  # of logits: themselves, their exponentials and their gradients


class Size(NamedTuple):
    """Vectors a word, and by what they are dealt out; None deals them out evenly."""

    vectors: int
    by: str | None

    @classmethod
    def named(cls, name: str) -> "Size":
        """Read the name of a size."""
        vectors, _, by = name.partition("_by_")
        return cls(int(vectors), by or None)


def training_bytes(settings: Settings, size: ModelSize, vectors: int) -> float:
    """Return the bytes of data that training so many vectors a word holds at a time.

    Args:
        settings: of the training.
        size: of the LM whose hidden states are the keys.
        vectors: a word.
    """
    rows, batch = vectors * size.vocabulary, settings["batch_size"] / settings["accumulation"]
    return FP32 * rows * (COPIES * size.width + TILES * batch)


def sizes_of(config: Settings, datastore: str) -> list[str]:
    """Return the names of the sizes that are trained from a datastore.

    Args:
        config: of the run.
        datastore: the baseline's, whose keys are att, or the one whose keys are ffn.
    """
    own: dict[str, Any] = config["trained_embeddings"]
    return own["vectors"]["ffn" if datastore == own["ffn_datastore"] else "att"]
