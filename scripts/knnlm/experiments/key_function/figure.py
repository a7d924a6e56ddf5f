"""The figure of key_function: perplexity by the hidden state that is the key, beside the LM's."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from knnlm.evidence.plotting import FULL_WIDTH, draw_levels
from knnlm.evidence.tables import over_seeds, select


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return one row a site with its interval; the dashed line is the LM without a datastore."""
    rows = select(over_seeds(tables["table"]), metric="perplexity_per_token")
    figure = Figure(figsize=(FULL_WIDTH, 2.4), layout="constrained")
    draw_levels(figure.subplots(), rows, label="perplexity per token (test)")
    return figure
