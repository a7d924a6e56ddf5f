"""The figure of distance_precision: perplexity by the distance that counts, beside the LM's."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from knnlm.evidence.plotting import FULL_WIDTH, draw_levels
from knnlm.evidence.tables import over_seeds, select

LARGEST_K = "/largest_k"  # ends the settings of the rows that are drawn


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return one row a distance, with the largest k; the dashed line is the LM alone."""
    rows = select(over_seeds(tables["table"]), metric="perplexity_per_word")
    rows = rows[(rows["method"] == "lm") | rows["setting"].str.endswith(LARGEST_K)]
    rows = rows.assign(setting=rows["setting"].str.removesuffix(LARGEST_K))
    figure = Figure(figsize=(FULL_WIDTH, 1.6), layout="constrained")
    draw_levels(figure.subplots(), rows, label="perplexity per word (test)")
    return figure
