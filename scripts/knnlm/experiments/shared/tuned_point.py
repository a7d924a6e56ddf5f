"""The point that knn_perplexity tuned on validation, read from its table by later experiments."""

import pandas as pd

from knnlm.evidence.tables import select
from knnlm.retrieval.tuning import Point

TUNED = "tuned"


def tuned_point(table: pd.DataFrame, *, index: str, seed: int) -> Point:
    """Return k, temperature and lmbda that knn_perplexity chose on validation, from its table."""
    names = {"method": "knn_lm", "split": "validation", "setting": f"{index}/{TUNED}"}
    chosen = select(table, **names, seed=str(seed)).set_index("metric")["value"]
    return Point(int(chosen["k"]), float(chosen["temperature"]), float(chosen["lmbda"]))
