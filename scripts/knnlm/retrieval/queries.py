"""Which queries are searched in a datastore: all of them, or some that are evenly spaced."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knnlm.lm.scoring import load_queries
from knnlm.retrieval.sampling import evenly_spaced


def searched_queries(
    queries: Path, site: str, n_queries: int | None
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Return the hidden states (n, d) of the queries that are searched, and how many they are.

    Args:
        queries: the folder of the queries.
        site: of the hidden states.
        n_queries: how many evenly spaced ones are searched; all if None.
    """
    hidden = load_queries(queries).hidden(site)
    places = evenly_spaced(len(hidden), n_queries)
    asked = {"n_queries": len(places), "of_queries": len(hidden)}
    return hidden if len(places) == len(hidden) else np.array(hidden[places]), asked
