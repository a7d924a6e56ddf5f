"""The figure of temperature: perplexity over the temperature, by share, mask and score."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS
from knnlm.evidence.tables import select

MODES = {
    "approximate_approximate": ("approximate mask and score", OTHERS[0], "-"),
    "approximate_real": ("approximate mask, real score", OTHERS[1], (0, (4, 1.5))),
    "real_real": ("real mask and score", OTHERS[2], (0, (1, 1))),
}
BEST, PUBLISHED = "/best", "/temperature 1"


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return a panel for each share, with a curve for each mask and score.

    A dot is the temperature that validation chose, a circle temperature 1, dashed the LM.
    """
    grid = select(tables["grid"], metric="perplexity_per_token").copy()
    grid[["share", "mode"]] = grid["setting"].str.split("/", n=1, expand=True)
    shares = list(dict.fromkeys(grid["share"]))
    figure = Figure(figsize=(FULL_WIDTH, 2.6), layout="constrained")
    panels = figure.subplots(1, len(shares), squeeze=False)[0]
    for axes, share in zip(panels, shares, strict=True):
        _draw_panel(axes, grid[grid["share"] == share])
        axes.set_title(f"{float(share):.0%} of the datastore", loc="left")
    panels[0].set_ylabel("perplexity per token (test)")
    panels[0].legend(frameon=False, fontsize=6.5)
    return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame) -> None:
    lm = select(rows, method="lm")["value"].item()
    axes.axhline(lm, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)))
    for mode, (label, color, style) in MODES.items():
        curve = rows[rows["mode"] == mode]
        axes.plot(curve["temperature"], curve["value"], color=color, linestyle=style, label=label)
        for kind, filling in ((BEST, color), (PUBLISHED, "white")):
            point = rows[rows["mode"] == mode + kind]
            places = (point["temperature"], point["value"])
            axes.plot(*places, "o", color=color, markerfacecolor=filling, markersize=4)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("temperature / mean squared distance")
