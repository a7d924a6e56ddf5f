"""The figure of key_and_distance: perplexity by key and distance, mixed with the LM and oracle."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from knnlm.evidence.plotting import FULL_WIDTH, draw_levels
from knnlm.evidence.tables import over_seeds, select

PANELS = {"knn_lm": "kNN-LM", "oracle": "oracle: the better of the two for each token"}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return a panel for the mixture and one for the oracle, a row for each key and distance."""
    rows = select(over_seeds(tables["table"]), metric="perplexity_per_token")
    rows = rows[~rows["setting"].str.contains("/")]  # tuned on validation
    figure = Figure(figsize=(FULL_WIDTH, 1.9), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (method, title) in zip(panels, PANELS.items(), strict=True):
        shown = rows[rows["method"].isin(["lm", method])].copy()
        shown["method"] = shown["method"].replace({method: "knn_lm"})
        shown["setting"] = shown["setting"].str.replace("_l2", ", L2").str.replace("_ip", ", IP")
        draw_levels(axes, shown, label="perplexity per token (test)")
        axes.set_title(title, loc="left")
    panels[1].invert_yaxis()  # shared, and turned once for each panel
    panels[1].set_title("")
    panels[1].set_title(PANELS["oracle"], loc="left")
    panels[1].set_title("", loc="right")
    return figure
