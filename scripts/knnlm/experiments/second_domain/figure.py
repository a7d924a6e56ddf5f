"""The figure of second_domain: perplexity of the kNN-LM of another domain beside its LM's."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLUMN_WIDTH, draw_levels
from knnlm.evidence.tables import select


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return one row a kNN-LM with its interval; the dashed line is the LM without a datastore."""
    rows = select(tables["table"], metric="perplexity_per_token", split="test")
    figure = Figure(figsize=(COLUMN_WIDTH, 1.4), layout="constrained")
    axes = figure.subplots()
    draw_levels(axes, rows, label="perplexity per token (test)")
    axes.set_ylim(len(rows) - 1.5, -0.5)
    return figure
