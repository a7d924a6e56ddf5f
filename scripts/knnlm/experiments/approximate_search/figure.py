"""The figure of approximate_search: perplexity by share of the datastore, mask and score."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, LABELS, OTHERS, Label, label_right
from knnlm.evidence.tables import select

PANELS = {
    "temperature_1": "temperature 1, as published",
    "tuned": "temperature tuned on validation",
}
MODES = {
    "approximate_approximate": ("approximate mask and score", OTHERS[0], "-"),
    "approximate_real": ("approximate mask, real score", OTHERS[1], (0, (4, 1.5))),
    "real_real": ("real mask and score", OTHERS[2], (0, (1, 1))),
}
HALF = "half_half"


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return perplexity over the share of the datastore, at temperature 1 and with it tuned.

    A line for each mask and score; a cross is exact search in fp16, dashed is the LM.
    """
    rows = select(tables["table"], metric="perplexity_per_token")
    lm = select(rows, method="lm")["value"].item()
    rows = rows[(rows["method"] == "knn_lm") & (rows["seed"] != "all")].copy()
    rows[["share", "mode", "choice"]] = rows["setting"].str.split("/", expand=True)
    rows["share"] = rows["share"].astype(float)
    figure = Figure(figsize=(FULL_WIDTH, 2.6), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (choice, title) in zip(panels, PANELS.items(), strict=True):
        _draw_panel(axes, rows[rows["choice"] == choice], lm)
        axes.set_title(title, loc="left")
    panels[0].set_ylabel("perplexity per token (test)")
    ends = rows[(rows["choice"] == "tuned") & (rows["share"] == 1)].set_index("mode")["value"]
    labels = [Label(ends[mode], text, color) for mode, (text, color, _) in MODES.items()]
    label_right(panels[1], [*labels, Label(lm, LABELS["lm"], COLORS["lm"])])
    return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame, lm: float) -> None:
    axes.axhline(lm, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)))
    for mode, (_, color, style) in MODES.items():
        line = rows[rows["mode"] == mode].sort_values("share")
        axes.plot(line["share"], line["value"], color=color, linestyle=style, marker="o", ms=2.5)
    half = rows[rows["mode"] == HALF]
    axes.plot(half["share"], half["value"], "x", color="black", markersize=4, label="real, in fp16")
    axes.legend(frameon=False, loc="lower left", fontsize=6.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the datastore")
