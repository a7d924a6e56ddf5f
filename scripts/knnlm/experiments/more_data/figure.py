"""The figure of more_data: perplexity and weight on kNN by the size of the datastore."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS, Label, label_right
from knnlm.evidence.tables import select

HEIGHT = 2.4  # inches
BAND = 0.15  # opacity
HEADROOM = 0.08  # of the range, above and below
METRIC = "perplexity_per_word"
LEVELS = {  # LMs without retrieval
    "lm": ("LM of a part", COLORS["lm"]),
    "further": ("LM of a part,\ntrained further", COLORS["control"]),
    "whole": ("LM of the whole", OTHERS[0]),
}
WEIGHTS = {"tuned": ("k tuned", "-"), "largest_k": ("largest k", ":")}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return perplexity over the size, with the levels of the LMs, and the best weight over it."""
    table = tables["table"]
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = []
    for method, (text, color) in LEVELS.items():
        level = select(table, method=method, metric=METRIC)["value"].item()
        left.axhline(level, color=color, linewidth=1.0, linestyle=(0, (4, 2)))
        labels.append(Label(level, text, color))
    curve = _curve(left, table, METRIC, "tuned", "-")
    labels.append(Label(curve["value"].iloc[-1], "kNN-LM of a part", COLORS["knn_lm"]))
    heights = [label.height for label in labels] + curve["value"].tolist()
    margin = HEADROOM * (max(heights) - min(heights))
    left.set_ylim(min(heights) - margin, max(heights) + margin)
    left.set_ylabel("perplexity per word (test)")
    label_right(left, labels, gap=0.12)
    weights = []
    for name, (text, style) in WEIGHTS.items():
        curve = _curve(right, table, "lmbda", name, style)
        weights.append(Label(curve["value"].iloc[-1], text, COLORS["knn_lm"]))
    label_right(right, weights)
    right.set_ylabel(r"best $\lambda$, weight on kNN (validation)")
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.set_xlabel("datastore, share of the whole text")
    return figure


def _curve(axes: Axes, table: pd.DataFrame, metric: str, name: str, style: str) -> pd.DataFrame:
    """Draw a metric of the kNN-LM over the share with its band; return its rows."""
    rows = select(table, method="knn_lm", metric=metric)
    rows = rows[rows["setting"].str.endswith(f"/{name}")].sort_values("share")
    color = COLORS["knn_lm"]
    axes.plot(rows["share"], rows["value"], color=color, linestyle=style, marker="o", markersize=3)
    band = rows.dropna(subset=["ci_low"])
    if style == "-":
        ends = (band["share"], band["ci_low"], band["ci_high"])
        axes.fill_between(*ends, color=color, alpha=BAND, linewidth=0)
    return rows
