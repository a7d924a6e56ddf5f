"""The figure of knn_perplexity: perplexity on validation over lmbda, temperature and k."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, LABELS, Label, label_right
from knnlm.evidence.tables import select

HEIGHT = 2.6  # inches
BAND = 0.15  # opacity
HEADROOM = 0.12  # of the range from the lowest to the highest level, above and below
RETUNED = "over k, retuned"  # in the table
# axis label, and scale: temperature grows tenfold from tick to tick, k fourfold
PANELS = {
    "lmbda": (r"$\lambda$, weight on kNN", {"value": "linear"}),
    "temperature": ("temperature / mean squared distance", {"value": "log", "base": 10}),
    "k": ("k, number of neighbors", {"value": "log", "base": 4}),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return three panels that share the axis of perplexity per token on validation.

    Along each panel one setting varies and the two others stay at their tuned values; a dot marks
    the tuned point, lines mark the LM and, if there is one, the LM that was trained longer. Dotted
    over k is the curve with temperature and lmbda tuned for each k. One curve an LM seed, with the
    band of its intervals; levels are means over seeds. Where a curve is far worse than the LM it
    leaves the panel.

    Args:
        tables: `grid` of `evaluate`.
    """
    curves = tables["grid"]
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    methods = [name for name in ("lm", "control") if (curves["method"] == name).any()]
    levels = {name: select(curves, method=name)["value"].mean() for name in methods}
    tuned = curves[curves["setting"].str.endswith("/tuned")]
    levels["knn_lm"] = tuned["value"].mean()
    for axes, varied in zip(panels, PANELS, strict=True):
        _draw_panel(axes, varied, curves, tuned)
        for name in methods:
            axes.axhline(levels[name], color=COLORS[name], linewidth=1.0, linestyle=(0, (4, 2)))
    low, high = min(*levels.values(), tuned["value"].min()), max(levels.values())
    margin = HEADROOM * (high - low)
    panels[0].set_ylim(low - 1.5 * margin, high + 2 * margin)  # the tuned values stand below
    panels[0].set_ylabel("perplexity per token (validation)")
    label_right(
        panels[-1], [Label(level, LABELS[name], COLORS[name]) for name, level in levels.items()]
    )
    return figure


def _draw_panel(axes: Axes, varied: str, curves: pd.DataFrame, tuned: pd.DataFrame) -> None:
    along = curves[curves["setting"].str.endswith(f"/over {varied}")]
    for _, curve in along.groupby("seed"):
        axes.plot(curve[varied], curve["value"], color=COLORS["knn_lm"])
        ends = (curve[varied], curve["ci_low"], curve["ci_high"])
        axes.fill_between(*ends, color=COLORS["knn_lm"], alpha=BAND, linewidth=0)
    if varied == "k":
        retuned = curves[curves["setting"].str.endswith(f"/{RETUNED}")]
        retuned = retuned[retuned["metric"] == "perplexity_per_token"]
        for _, curve in retuned.groupby("seed"):
            axes.plot(curve["k"], curve["value"], color=COLORS["knn_lm"], linestyle=":")
    label, scale = PANELS[varied]
    axes.set_xscale(**scale)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel(label)
    axes.plot(tuned[varied], tuned["value"], "o", color=COLORS["knn_lm"], markersize=4)
    if len(tuned) == 1:  # the values of several seeds would lie on each other
        place = (tuned[varied].item(), tuned["value"].item())
        axes.annotate(
            f"{place[0]:,.0f}" if varied == "k" else f"{place[0]:.2g}",
            place,
            xytext=(0, -5),
            textcoords="offset points",
            color=COLORS["knn_lm"],
            ha="center",
            va="top",
        )
