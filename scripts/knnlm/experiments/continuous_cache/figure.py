"""The figure of continuous_cache: what a cache brings, and how large it must be."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, LABELS, OTHERS, Label, label_right
from knnlm.evidence.tables import over_seeds, select

HEIGHT = 2.4  # inches
METHODS = {  # from top to bottom
    "lm": (LABELS["lm"], COLORS["lm"]),
    "more_context": ("LM, more context", COLORS["control"]),
    "cache": ("LM + cache", OTHERS[0]),
    "knn_lm": (LABELS["knn_lm"], COLORS["knn_lm"]),
    "knn_lm_cache": ("kNN-LM + cache", OTHERS[2]),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return perplexity per word of each method on test, and what a cache of each size changes.

    Args:
        tables: `table` and `grid` of `evaluate`.
    """
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_levels(left, over_seeds(tables["table"]))
    _draw_sizes(right, tables["grid"])
    return figure


def _draw_levels(axes: Axes, table: pd.DataFrame) -> None:
    rows = select(table, split="test", metric="perplexity_per_word")
    for method, (name, color) in METHODS.items():
        row = select(rows, method=method).iloc[0]
        if method == "lm":
            axes.axvline(row["value"], color=color, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.plot([row["ci_low"], row["ci_high"]], [name, name], color=color, linewidth=1.0)
        axes.plot(row["value"], name, "o", color=color, markersize=4)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("perplexity per word (test)")


def _draw_sizes(axes: Axes, grid: pd.DataFrame) -> None:
    """Draw the change by the cache, one curve an LM seed; dots mark the tuned sizes."""
    labels = []
    axes.axhline(0, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)))
    for method, without in {"cache": "lm", "knn_lm_cache": "knn_lm"}.items():
        name, color = METHODS[method]
        rows = select(grid, method=method, metric=f"perplexity_per_token_change_vs_{without}")
        curves = select(rows, setting="over size")
        for _, curve in curves.groupby("seed"):
            axes.plot(curve["size"], curve["value"], color=color)
        tuned = select(rows, setting="tuned")
        axes.plot(tuned["size"], tuned["value"], "o", color=color, markersize=4)
        ends = curves[curves["size"] == curves["size"].max()]
        labels.append(Label(ends["value"].mean(), name, color))
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    axes.set_xticks(sorted(grid["size"].unique()))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("past positions in the cache")
    axes.set_ylabel("change by the cache, % (validation)")
    label_right(axes, labels)
