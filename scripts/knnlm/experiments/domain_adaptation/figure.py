"""The figure of domain_adaptation: perplexity on validation over lmbda, in and out of domain."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, LABELS, OTHERS, Label, label_right
from knnlm.evidence.tables import select

HEIGHT, BAND = 2.5, 0.15  # inches; opacity
DOMAINS = ("in domain", "out of domain")
FAR = 3.0  # times the lowest level: levels beyond it ask for a logarithmic axis
ROOM = 0.08  # of the axis, below the lowest level and above the LM
LEVELS = {
    "in_domain_lm": ("LM trained there", OTHERS[0]),
    "fine_tuned": ("LM fine-tuned", OTHERS[2]),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return a panel a domain, each with an axis of its own, as in the paper's Figure 5.

    The axis is logarithmic where the LM is far above the rest.
    The curve begins at the LM itself, lmbda 0; a dot marks the best lmbda, a bar its interval over
    documents, and bands are intervals of the level. Dashed lines are the LM, and out of domain the
    LM that was trained there and the one that was fine-tuned for as many FLOPs.

    Args:
        tables: `table` and `grid` of `evaluate`.
    """
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    best = select(tables["table"], metric="best_lmbda")
    for axes, domain in zip(figure.subplots(1, 2), DOMAINS, strict=True):
        _draw_domain(axes, domain, tables["grid"], best)
    figure.axes[0].set_ylabel("perplexity per token (validation)")
    return figure


def _draw_domain(axes: Axes, domain: str, grid: pd.DataFrame, best: pd.DataFrame) -> None:
    curve, color = select(grid, setting=f"{domain}/over lmbda"), COLORS["knn_lm"]
    lm = curve.loc[curve["lmbda"] == 0, "value"].item()
    axes.plot(curve["lmbda"], curve["value"], color=color)
    axes.fill_between(
        curve["lmbda"], curve["ci_low"], curve["ci_high"], color=color, alpha=BAND, linewidth=0
    )
    levels = {LABELS["lm"]: (lm, COLORS["lm"])}
    for method, (text, of_it) in LEVELS.items():
        found = grid[(grid["method"] == method) & (grid["setting"] == domain)]
        if len(found):
            levels[text] = (found["value"].item(), of_it)
    for height, of_it in levels.values():
        axes.axhline(height, color=of_it, linewidth=1.0, linestyle=(0, (4, 2)))
    row = best[best["setting"] == domain].iloc[0]
    least = curve["value"].min()
    axes.hlines(least, row["ci_low"], row["ci_high"], color=color, linewidth=2.4)
    axes.plot(row["value"], least, "o", color=color, markersize=4)
    ends = curve[["value", "ci_low", "ci_high"]]
    high = ends[curve["lmbda"] == 0].max(axis=None)
    _set_limits(axes, min(ends.min(axis=None), *(height for height, _ in levels.values())), high)
    axes.set_xlim(0, 1)
    axes.set_xlabel(r"$\lambda$, weight on kNN")
    axes.set_title(f"{domain}: {row['corpus']}")
    labels = [Label(height, text, of_it) for text, (height, of_it) in levels.items()]
    label_right(axes, [*labels, Label(least, LABELS["knn_lm"], color)])


def _set_limits(axes: Axes, low: float, high: float) -> None:
    """Show the levels from low to high, on a logarithmic axis if they are far apart."""
    if high > FAR * low:
        room = (high / low) ** ROOM
        axes.set_yscale("log", subs=[])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_ylim(low / room, high * room)
    else:
        room = ROOM * (high - low)
        axes.set_ylim(low - room, high + room)
