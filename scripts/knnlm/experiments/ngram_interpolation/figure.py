"""The figure of ngram_interpolation: perplexity over the order, beside that of the kNN-LM."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, LABELS, OTHERS, Label, label_right
from knnlm.evidence.tables import over_seeds, select

HEIGHT = 2.6  # inches
BAND = 0.15  # opacity
CURVES = {"ngram": ("LM + n-grams", OTHERS[0]), "knn_lm_ngram": ("kNN-LM + n-grams", OTHERS[1])}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return perplexity on test by the order of the n-grams, and its change against the kNN-LM.

    Dashed lines are the LM and the kNN-LM without n-grams. Bands are intervals.
    """
    rows = select(over_seeds(tables["table"]), split="test")
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    levels = []
    for method in ("lm", "knn_lm"):
        level = select(rows, method=method, metric="perplexity_per_token")["value"].item()
        left.axhline(level, color=COLORS[method], linewidth=1.0, linestyle=(0, (4, 2)))
        levels.append(Label(level, LABELS[method], COLORS[method]))
    levels += _curves(left, rows, "perplexity_per_token")
    left.set_ylabel("perplexity per token (test)")
    label_right(left, levels)
    right.axhline(0, color=COLORS["knn_lm"], linewidth=1.0, linestyle=(0, (4, 2)))
    changes = _curves(right, rows, "perplexity_per_token_change_vs_knn_lm")
    right.set_ylabel("change of perplexity against the kNN-LM, %")
    label_right(right, [Label(0, LABELS["knn_lm"], COLORS["knn_lm"]), *changes])
    return figure


def _curves(axes: Axes, rows: pd.DataFrame, metric: str) -> list[Label]:
    """Draw one curve a method over the order, and return what stands beside its end."""
    labels = []
    for method, (name, color) in CURVES.items():
        curve = select(rows, method=method, metric=metric)
        curve = curve[curve["setting"].str.startswith("order ")]
        orders = curve["setting"].str.removeprefix("order ").astype(int)
        axes.plot(orders, curve["value"], "o-", color=color, markersize=3)
        axes.fill_between(
            orders, curve["ci_low"], curve["ci_high"], color=color, alpha=BAND, linewidth=0
        )
        labels.append(Label(curve["value"].iloc[-1], name, color))
    axes.set_xlabel("order of the n-grams")
    axes.set_xticks(orders)
    return labels
