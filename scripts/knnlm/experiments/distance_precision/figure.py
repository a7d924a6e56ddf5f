"""The figure of distance_precision: perplexity by the distance that counts, beside the LM's."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from knnlm.evidence.plotting import FULL_WIDTH, draw_levels
from knnlm.evidence.tables import over_seeds, select


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return one row a distance with its interval; the dashed line is the LM alone."""
    rows = select(over_seeds(tables["table"]), metric="perplexity_per_word")
    figure = Figure(figsize=(FULL_WIDTH, 2.2), layout="constrained")
    draw_levels(figure.subplots(), rows, label="perplexity per word (test)")
    return figure
